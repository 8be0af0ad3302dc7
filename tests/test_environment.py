"""What stays on this machine passes no proxy, whatever the environment says; nor does -O matter."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from pluralllm_app.core.environment import (
    for_processes,
    no_proxy,
    proxy_to,
    sparing_this_machine,
    unusable_proxies,
)
from tests.support.command import pluralllm

DEAD = "127.0.0.1:9"
TLS = httpx.create_ssl_context()  # made once: each client would read all certificates anew
PROXIES: list[dict[str, str]] = [
    {"HTTP_PROXY": f"http://{DEAD}"},
    {"http_proxy": f"http://{DEAD}"},
    {"HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD, "https_proxy": DEAD},
    {"ALL_PROXY": f"http://{DEAD}"},
    {"all_proxy": f"https://{DEAD}"},
    {"ALL_PROXY": f"socks5://{DEAD}"},
    {"ALL_PROXY": f"socks5h://user:secret@{DEAD}", "http_proxy": f"http://{DEAD}"},
    {"ALL_PROXY": f"socks://{DEAD}", "all_proxy": f"socks4://{DEAD}"},
    {"http_proxy": "http://proxy:not-a-port", "ALL_PROXY": "http://"},
    {"HTTP_PROXY": f"http://{DEAD}", "NO_PROXY": "example.org"},
    {"HTTP_PROXY": f"http://{DEAD}", "NO_PROXY": "[::1],fd00::/8,10.0.0.0/8, .example.org ,,a b"},
    {"HTTP_PROXY": f"http://{DEAD}", "no_proxy": "example.org", "NO_PROXY": "127.0.0.1"},
    {"HTTP_PROXY": f"http://{DEAD}", "no_proxy": "", "NO_PROXY": "*"},
]


class Here(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server on this machine, by number; it is known as localhost too."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("proxies", PROXIES)
def test_this_machine_is_reached_without_its_proxies(
    server: str, proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with sparing_this_machine():
        client = httpx.Client(verify=TLS)
    with client:
        for address in (server, server.replace("127.0.0.1", "localhost")):
            assert client.get(address).status_code == 200
    made = for_processes({"PATH": "/bin", **proxies})
    with monkeypatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            for spelling in (name, name.lower()):
                patch.delenv(spelling, raising=False)
        for name, value in made.items():
            patch.setenv(name, value)
        assert httpx.get(server, verify=TLS).status_code == 200


def test_a_block_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("ALL_PROXY", f"socks://{DEAD}")
    before = dict(os.environ)
    with sparing_this_machine():
        assert "ALL_PROXY" not in os.environ
        assert "::1" in os.environ["no_proxy"]
    assert dict(os.environ) == before


def test_what_goes_to_other_machines_keeps_its_proxy() -> None:
    given = {"HTTPS_PROXY": "http://proxy.example.org:3128", "NO_PROXY": "intern.example.org"}
    made = for_processes(given)
    assert made["HTTPS_PROXY"] == given["HTTPS_PROXY"]
    assert no_proxy(given)["no_proxy"] == "intern.example.org,127.0.0.1,localhost,::1"
    said = "HTTPS_PROXY=http://proxy.example.org:3128"
    assert proxy_to("https://flower.example.org:9443", made) == said
    assert proxy_to("https://intern.example.org:9443", made) is None
    assert proxy_to("https://[::1]:9443", made) is None
    assert proxy_to("http://flower.example.org", made) is None
    secret = {"all_proxy": "socks5://user:secret@proxy:1080"}
    assert proxy_to("https://example.org", secret) == "all_proxy=socks5://proxy:1080"


def test_unusable_proxies_are_named() -> None:
    given = {"ALL_PROXY": "socks://a:1", "HTTP_PROXY": "a:1", "https_proxy": "", "PATH": "x://y"}
    assert unusable_proxies(given) == ["ALL_PROXY"]


def test_what_libraries_warn_of_is_no_error_of_a_command() -> None:
    done = pluralllm("--version", env=os.environ | {"PYTHONWARNINGS": "error"})
    assert (done.returncode, done.stderr) == (0, "")


def test_python_runs_as_usual_in_other_processes() -> None:
    given = {
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/somewhere",
        "HOME": "/home/me",
    }
    made = for_processes(given)
    assert {key: value for key, value in made.items() if key.lower() != "no_proxy"} == {
        "PYTHONPATH": "/somewhere",
        "HOME": "/home/me",
        "PYTHONUTF8": "1",
    }


@pytest.mark.parametrize("scheme", ["", "//", "http://", "socks5://"])
def test_a_proxys_password_is_not_told(scheme: str) -> None:
    told = proxy_to("https://example.org", {"HTTPS_PROXY": f"{scheme}user:secret@proxy:3128"})
    assert told == f"HTTPS_PROXY={scheme}proxy:3128"


def test_exemptions_of_the_user_stay() -> None:
    kept = ["example.org:8080", "*.example.org", "http://intern", "10.0.0.0/8", "fd00::1"]
    found = no_proxy({"NO_PROXY": ",".join([*kept, "[::1]", "fd00::/8", "a b"])})["NO_PROXY"]
    assert found.split(",")[: len(kept) + 1] == [*kept, "127.0.0.1"]
