"""Which connections a SuperLink keeps."""

import asyncio
from collections.abc import Callable

import pytest

from pluralllm_app.deploy import connections as module
from pluralllm_app.deploy.connections import Connection, Connections, shared_address


class Open:
    """Connections by number, and which of them were cut."""

    def __init__(self, **limits: int) -> None:
        self.connections = Connections(**limits)
        self.all: list[Connection] = []
        self.cut: list[int] = []

    def open(self, *hosts: str) -> None:
        for host in hosts:
            number = len(self.all)
            cut: Callable[[], None] = lambda number=number: self.cut.append(number)  # noqa: E731
            self.all.append(self.connections.opened((host, number), host, cut))


def test_the_oldest_stranger_of_an_address_makes_room() -> None:
    async def go() -> None:
        there = Open(strangers=10, of_address=2)
        there.open("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1", "192.0.2.1")
        assert there.cut == [0, 2]

    asyncio.run(go())


def test_in_all_the_address_with_most_strangers_makes_room() -> None:
    """So somebody with one connection keeps it, however many another opens."""

    async def go() -> None:
        there = Open(strangers=4, of_address=10)
        there.open("192.0.2.2", *["192.0.2.1"] * 3)
        assert there.cut == []
        there.open("192.0.2.3", *["192.0.2.1"] * 2)
        assert there.cut == [1, 2, 3]

    asyncio.run(go())


def test_what_has_proved_a_key_is_no_stranger() -> None:
    async def go() -> None:
        there = Open(strangers=2, of_address=2)
        there.open("192.0.2.1")
        assert there.connections.prove(there.all[0], b"key")
        there.open(*["192.0.2.1"] * 5)
        assert 0 not in there.cut
        there.connections.closed(there.all[5])
        there.open("192.0.2.1")
        assert there.cut == [1, 2, 3]

    asyncio.run(go())


def test_a_key_has_so_many_connections() -> None:
    async def go() -> None:
        there = Open(of_key=2)
        there.open(*["192.0.2.1"] * 4)
        first, second, third, other = there.all
        prove = there.connections.prove
        assert prove(first, b"key")
        assert prove(first, b"key")  # its next request
        assert prove(second, b"key")
        assert not prove(third, b"key")
        assert prove(other, b"another")
        there.connections.closed(first)
        assert prove(third, b"key")

    asyncio.run(go())


def test_time_runs_out_unless_a_key_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROOF_SECONDS", 0.01)

    async def go() -> None:
        there = Open()
        there.open(*["192.0.2.1"] * 4)
        there.connections.prove(there.all[1], b"key")
        there.connections.release(there.all[2])
        there.connections.closed(there.all[3])
        while not there.cut:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert there.cut == [0]

    asyncio.run(go())


def test_time_runs_out_between_the_requests_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.01)

    async def go() -> None:
        there = Open()
        there.open("192.0.2.1")
        there.connections.prove(there.all[0], b"key")
        while not there.cut:
            await asyncio.sleep(0.01)

    asyncio.run(go())


def test_a_name_that_is_taken_again_is_another_connection() -> None:
    async def go() -> None:
        connections = Connections()
        first = connections.opened("peer", "192.0.2.1", list)
        second = connections.opened("peer", "192.0.2.1", list)
        connections.closed(first)
        assert connections.find("peer") is second
        connections.closed(second)
        assert connections.find("peer") is None

    asyncio.run(go())


def test_one_address_of_ipv6_is_a_network() -> None:
    assert shared_address("192.0.2.1") == "192.0.2.1"
    assert shared_address("2001:db8::1:2:3:4") == shared_address("2001:db8:0:0:9::") == "2001:db8::"
    assert shared_address("fe80::1%eth0") == "fe80::"
