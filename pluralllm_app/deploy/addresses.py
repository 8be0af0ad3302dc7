"""DNS names and IP addresses of the SuperLink's machine."""

import re
from ipaddress import ip_address

from pluralllm_app.errors import UserError

LOCAL = ("localhost", "127.0.0.1", "::1")
"""How the SuperLink's machine calls itself: the ServerApp and who submits runs are there."""
_DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)


def server_name(given: str) -> str:
    """A DNS name or IP address in the form that certificates and scripts have it.

    Raises:
        UserError: it is neither.
    """
    name = given.lower().removeprefix("[").removesuffix("]")
    # An IPv6 address may end with the name of an interface, which can hold anything.
    address = is_ip(name) and "%" not in name
    if not address and not (len(name) <= 253 and _DNS_NAME.fullmatch(name)):
        raise UserError(
            f"--server {name!r} is neither a DNS name nor an IP address: give it without port and "
            "scheme, such as flower.example.org"
        )
    return name


def check_one_family(servers: list[str]) -> None:
    """Raise UserError where there are addresses of both IPv4 and IPv6."""
    if len({is_ipv6(name) for name in servers if is_ip(name)}) > 1:
        raise UserError(
            f"--server {', '.join(servers)}: the SuperLink listens on IPv4 or on IPv6, not on "
            "both: give addresses of one kind"
        )


def with_port(host: str, port: int) -> str:
    """Host and port as one address."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def bind_address(servers: list[str]) -> str:
    """Where the SuperLink listens: on loopback alone if all its names are loopback."""
    alone = all(map(_is_loopback, servers))
    if any(map(is_ipv6, servers)):
        return "::1" if alone else "::"
    return "127.0.0.1" if alone else "0.0.0.0"


def is_ipv6(name: str) -> bool:
    """Whether a DNS name or IP address is an IPv6 address."""
    return ":" in name


def is_ip(name: str) -> bool:
    """Whether a DNS name or IP address is an IPv4 or IPv6 address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return ip_address(name).is_loopback if is_ip(name) else name == "localhost"
