"""Where the service listens, and the token without which it does so on this machine alone."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from pluralllm_app.errors import UserError
from pluralllm_app.serve.limits import CONNECTIONS

TOKEN_VARIABLE = "PLURALLLM_TOKEN"
LEAST_TOKEN = 16  # characters: at the rate that an address may ask, guessing takes for ever
_NEW_TOKEN = "python -c 'import secrets; print(secrets.token_urlsafe())' prints one"


@dataclass(frozen=True)
class Address:
    """A socket that listens."""

    socket: socket.socket
    loopback: bool

    @property
    def url(self) -> str:
        """Of the page, as this machine reaches it."""
        host, port = self.socket.getsockname()[:2]
        if ipaddress.ip_address(host).is_unspecified:
            host = "127.0.0.1" if "." in host else "::1"
        return f"http://{_bracketed(host)}:{port}/"

    def hosts(self, given: str) -> set[str] | None:
        """What requests may call this machine; None: anything.

        Args:
            given: the host that the user gave.
        """
        if not self.loopback:
            return None
        host = self.socket.getsockname()[0]
        return {"localhost", "127.0.0.1", "[::1]", _bracketed(host), _bracketed(given).lower()}


def bind(host: str, port: int, token: str | None) -> Address:
    """Take an address.

    Args:
        host: name or address of an interface of this machine.
        port: 0 for one that is free.
        token: of the service, which every address needs that others can reach.

    Raises:
        UserError: it is not to be had, or needs a token.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host} is no address of this machine: {error}") from error
    loopback = ipaddress.ip_address(place[0]).is_loopback
    if not loopback and token is None:
        raise UserError(
            f"--host {host} can be reached by others, who could then use the service: give it a "
            f"--token, or ${TOKEN_VARIABLE}; {_NEW_TOKEN}"
        )
    # asyncio sends small responses at once only where the protocol is stated to be TCP.
    taken = socket.socket(family, kind, protocol)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(place)
        taken.listen(CONNECTIONS)  # from now on nobody else can have it; who comes waits
    except OSError as error:
        taken.close()
        raise UserError(
            f"{host} port {port} cannot be taken ({error.strerror}): give another --port or --host"
        ) from error
    return Address(taken, loopback)


def read_token(given: str | None) -> str | None:
    """The token that was given as a text, or as @FILE.

    Raises:
        UserError: the file cannot be read, or it is no token that clients could send.
    """
    if given is None:
        return None
    if given.startswith("@"):
        file = Path(given[1:]).expanduser()
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise UserError(f"the token cannot be read from {file}: {error}") from error
    else:
        token = given.strip()
    if len(token) < LEAST_TOKEN or not all("!" <= sign <= "~" for sign in token):
        raise UserError(
            f"the token must have {LEAST_TOKEN} or more of the signs of English without spaces: "
            f"{_NEW_TOKEN}"
        )
    return token


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
