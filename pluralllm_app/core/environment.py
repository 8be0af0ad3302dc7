"""The environment of processes that this app starts.

Every process inherits the variables of its user's shell, and some of them would change what Flower
and Ray do: proxies, which institutes and hospitals have, and how Python runs.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this machine: nothing that is sent there may pass a proxy."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_SCHEMES = ("http", "https", "socks5", "socks5h")  # of proxies that Flower's client can use


def for_processes(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of Flower or Ray, made of that of this process.

    What goes to this machine passes no proxy, and what goes to another one may. Output is in UTF-8,
    for the log. Python runs as usual: Ray needs its docstrings, and warnings are no errors.
    """
    changed = {key: value for key, value in environment.items() if key not in _OF_PYTHON}
    for key in unusable_proxies(changed):
        del changed[key]
    return changed | no_proxy(changed) | {"PYTHONUTF8": "1"}


_OF_PYTHON = (
    "PYTHONDONTWRITEBYTECODE",  # the app's bytecode is compiled once for all processes
    "PYTHONINSPECT",
    "PYTHONIOENCODING",
    "PYTHONOPTIMIZE",
    "PYTHONWARNINGS",
)


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY, in capitals and not, with this machine; without what Flower's client cannot read.

    It ends with an error where an entry is `[::1]`, a network of IPv6, or has a space.
    """
    # Whatever reads both takes the small one, and nothing else reads it where it is empty.
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",")]
    hosts = [host for host in hosts if host and not _unreadable(host)]
    value = ",".join(dict.fromkeys([*hosts, *LOCAL]))
    return {"no_proxy": value, "NO_PROXY": value}


def unusable_proxies(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that hold a proxy which Flower's client cannot use."""
    return [
        key
        for key, value in environment.items()
        if key.lower() in _PROXIES and value and not _is_usable(value)
    ]


def proxy_to(address: str, environment: Mapping[str, str]) -> str | None:
    """The proxy that a request to an address passes, as `HTTPS_PROXY=...`; None: it passes none."""
    from urllib import request  # takes a moment to import

    parts = urlsplit(address)
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    bypass = request.proxy_bypass_environment  # type: ignore[attr-defined]
    if parts.hostname in LOCAL or bypass(parts.netloc, {"no": given}):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            if value := environment.get(spelling):
                # Without the password that it may contain.
                scheme, sign, rest = value.rpartition("//")
                return f"{spelling}={scheme}{sign}{rest.rpartition('@')[2]}"
    return None


def take_environment() -> None:
    """Give this process the environment `for_processes`, and so the processes that it starts."""
    environment = for_processes(os.environ)
    os.environ.clear()
    os.environ.update(environment)


@contextmanager
def sparing_this_machine() -> Iterator[None]:
    """Let the block have, in this process, the proxies of `for_processes`."""
    before = dict(os.environ)
    os.environ.update(no_proxy(os.environ))
    for name in unusable_proxies(os.environ):
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _is_usable(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _unreadable(host: str) -> bool:
    network = "/" in host and ":" in host and "://" not in host
    return "[" in host or network or any(map(str.isspace, host))
