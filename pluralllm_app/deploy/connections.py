"""Which connections a SuperLink keeps, so that strangers cannot lock its nodes out.

A connection is a stranger's until a request on it is signed with a registered key. A stranger is
always let in, for a short time; where there are too many, the oldest goes, of the address that has
most of them. So who only holds connections makes room for who comes next, and a node needs a place
no longer than its first request takes, whoever shares its address.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from pluralllm_app.federation.flower_compat import LOGGER

PROOF_SECONDS = 10.0
"""Time for TLS, the headers and a small body, until the first signed request is whole."""
REQUEST_SECONDS = 600.0
"""Time between the requests of a node on one connection, those that bodies take included."""
STRANGERS = 256
STRANGERS_OF_ADDRESS = 128
CONNECTIONS_OF_KEY = 32
REQUESTS_OF_KEY = 6
"""At once. A SuperNode has five: two pieces of a message, a heartbeat, and two threads that ask."""


@dataclass(eq=False)
class Connection:
    """One connection, from when it is accepted."""

    peer: object
    """What names it while it is open: address and port of the other end."""
    address: str
    cut: Callable[[], None]
    """Closes it at once, whatever goes on."""
    key: bytes | None = None
    """The registered key that has signed on it."""
    deadline: asyncio.TimerHandle | None = None


@dataclass
class Connections:
    """The open connections of a SuperLink. Belongs to one event loop."""

    strangers: int = STRANGERS
    of_address: int = STRANGERS_OF_ADDRESS
    of_key: int = CONNECTIONS_OF_KEY
    cuts: int = 0
    """How many connections were cut to make room."""
    _open: dict[object, Connection] = field(default_factory=dict)
    _unproven: dict[str, dict[Connection, None]] = field(default_factory=dict)  # oldest first
    _keys: Counter[bytes] = field(default_factory=Counter)
    _slots: dict[bytes, asyncio.Semaphore] = field(default_factory=dict)

    def opened(self, peer: object, host: str, cut: Callable[[], None]) -> Connection:
        """Let a connection in; cut another one where there are too many.

        Args:
            peer: what names it.
            host: IP address of the other end.
            cut: see `Connection`.
        """
        connection = Connection(peer, shared_address(host), cut)
        self._open[peer] = connection
        mine = self._unproven.setdefault(connection.address, {})
        mine[connection] = None
        if len(mine) > self.of_address:
            self._make_room(mine)
        elif sum(map(len, self._unproven.values())) > self.strangers:
            self._make_room(max(self._unproven.values(), key=len))
        self._set_deadline(connection, PROOF_SECONDS)
        return connection

    def find(self, peer: object) -> Connection | None:
        """The open connection that has this name."""
        return self._open.get(peer)

    def prove(self, connection: Connection, key: bytes) -> bool:
        """Note that a registered key has signed on a connection; False if it has too many."""
        if connection.key != key:
            if self._keys[key] >= self.of_key:
                return False
            self._forget(connection)
            self._keys[key] += 1
            connection.key = key
        self._set_deadline(connection, REQUEST_SECONDS)
        return True

    def slots(self, key: bytes) -> asyncio.Semaphore:
        """The requests that a key may have at once."""
        return self._slots.setdefault(key, asyncio.Semaphore(REQUESTS_OF_KEY))

    def release(self, connection: Connection) -> None:
        """Give a connection all the time it wants: it belongs to this machine."""
        self._forget(connection)
        self._set_deadline(connection, None)

    def closed(self, connection: Connection) -> None:
        """Note that a connection is closed."""
        self._forget(connection)
        self._set_deadline(connection, None)
        if self._open.get(connection.peer) is connection:
            del self._open[connection.peer]

    def _make_room(self, connections: dict[Connection, None]) -> None:
        oldest = next(iter(connections))
        self._forget(oldest)
        self.cuts += 1
        if self.cuts.bit_count() == 1:  # 1, 2, 4 and so on: no flood of lines
            LOGGER.warning(
                "%d connections without a registered key were cut to make room, the last from %s",
                self.cuts,
                oldest.address,
            )
        oldest.cut()

    def _forget(self, connection: Connection) -> None:
        """Count a connection neither as a stranger's nor as a key's."""
        if connection.key is not None:
            self._keys[connection.key] -= 1
            connection.key = None
            return
        mine = self._unproven.get(connection.address, {})
        mine.pop(connection, None)
        if not mine:
            self._unproven.pop(connection.address, None)

    def _set_deadline(self, connection: Connection, seconds: float | None) -> None:
        if connection.deadline:
            connection.deadline.cancel()
        connection.deadline = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            connection.deadline = loop.call_later(seconds, lambda: connection.cut())


def shared_address(host: str) -> str:
    """What is counted as one address: of IPv6 the network, which one customer has whole."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> 64 << 64))
    return host
