"""Who may ask, how often, and what every response has."""

import pytest
from starlette.testclient import TestClient

from pluralllm_app.errors import UserError
from pluralllm_app.serve import limits
from pluralllm_app.serve.address import bind, read_token
from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.guard import HEADERS
from pluralllm_app.serve.lanes import Lane
from pluralllm_app.serve.messages import Refused
from pluralllm_app.serve.rates import Rates
from pluralllm_app.serve.running import prepare
from pluralllm_app.use.predictor import Predictor
from tests.serve.conftest import TOKEN

CLOSED = ("/card", "/questions", "/predict", "/ask", "/compare")


def test_a_token_is_asked_for(predictor: Predictor) -> None:
    with TestClient(make_app(prepare(predictor, None), TOKEN, None)) as client:
        for path in ("/", "/page.css", "/page.js", "/health", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in CLOSED:
            for given in (None, "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"):
                headers = {"Authorization": given.encode("latin-1")} if given else {}
                response = client.post(path, json={}, headers=headers)  # type: ignore[arg-type]
                assert response.status_code == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
        allowed = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/card", headers=allowed).status_code == 200
        allowed = {"Authorization": f"bearer  {TOKEN}"}
        assert client.get("/card", headers=allowed).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:8000", 200), ("evil.example", 400), ("localhost.evil", 400)],
)
def test_other_hosts_are_refused_on_loopback(client: TestClient, host: str, status: int) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == status


def test_every_response_has_the_headers(client: TestClient) -> None:
    responses = [client.get("/"), client.get("/nothing"), client.delete("/predict")]
    responses += [client.get("/health", headers={"Host": "evil"}), client.post("/predict")]
    assert [each.status_code for each in responses] == [200, 404, 405, 400, 415]
    for response in responses:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Server" not in response.headers


def test_nothing_but_the_page_is_served(client: TestClient) -> None:
    for path in ("/page/index.html", "/..%2f..%2fetc/passwd", "/%2e%2e/app.py"):
        assert client.get(path).status_code == 404


def test_an_address_that_asks_too_often_waits() -> None:
    rates = Rates()
    assert [rates.wait("192.0.2.1", 0.0) for _ in range(limits.BURST)] == [0.0] * limits.BURST
    assert rates.wait("192.0.2.1", 0.0) == pytest.approx(1 / limits.RATE)
    assert rates.wait("192.0.2.2", 0.0) == 0
    assert rates.wait("192.0.2.1", 1.01 / limits.RATE) == 0
    assert rates.wait("192.0.2.1", 1.01 / limits.RATE) > 0


def test_the_addresses_of_one_network_are_one() -> None:
    rates = Rates()
    for number in range(limits.BURST):
        assert rates.wait(f"2001:db8::{number:x}", 0.0) == 0
    assert rates.wait("2001:db8::ffff", 0.0) > 0
    assert rates.wait("2001:db8:0:1::1", 0.0) == 0


def test_too_many_requests_are_told_when_to_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pluralllm_app.serve.rates.BURST", 2)
    monkeypatch.setattr("pluralllm_app.serve.rates.RATE", 0.001)
    statuses = [client.get("/health") for _ in range(3)]
    assert [each.status_code for each in statuses] == [200, 200, 429]
    assert 900 < int(statuses[-1].headers["Retry-After"]) <= 1000


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    lane = Lane("test")
    monkeypatch.setattr("pluralllm_app.serve.lanes.WAITING_SECONDS", -1)
    with pytest.raises(Refused, match="busy") as late:
        await lane.do(lambda: b"")
    monkeypatch.setattr("pluralllm_app.serve.lanes.WAITING", 0)
    with pytest.raises(Refused, match="busy") as full:
        await lane.do(lambda: b"")
    assert (late.value.status, full.value.status) == (503, 503)
    lane.close()


def test_other_machines_need_a_token() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(UserError, match="can be reached by others") as refused:
            bind(host, 0, None)
        assert "--token" in str(refused.value)
    address = bind("0.0.0.0", 0, TOKEN)
    address.socket.close()
    assert address.hosts("0.0.0.0") is None


def test_a_loopback_address_needs_none() -> None:
    address = bind("localhost", 0, None)
    assert {"localhost", "127.0.0.1", "[::1]"} <= (address.hosts("localhost") or set())
    with pytest.raises(UserError, match="cannot be taken"):
        bind("localhost", address.socket.getsockname()[1], None)
    address.socket.close()
    with pytest.raises(UserError, match="is no address of this machine"):
        bind("no-such-host.invalid", 0, TOKEN)


def test_tokens_are_read_and_checked(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    assert read_token(f"@{file}") == read_token(TOKEN) == TOKEN
    assert read_token(None) is None
    for given in ("", "short", "a token with spaces", "ein-schönes-Zeichen-mehr"):
        with pytest.raises(UserError, match="16 or more"):
            read_token(given)
    with pytest.raises(UserError, match="cannot be read"):
        read_token(f"@{tmp_path / 'none'}")
