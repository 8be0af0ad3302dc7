"""A node that is not let in asks again."""

import sys

import httpx
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
)
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supernode import fleet_http_connection
from flwr.supernode.fleet_http_client import FleetHttpClient

from pluralllm_app.deploy import supernode
from pluralllm_app.deploy.supernode import PatientClient


def refusal(code: int) -> httpx.HTTPStatusError:
    error = FlowerError(code, "why")
    response = httpx.Response(400, json=error.to_json("why"))
    return httpx.HTTPStatusError("", request=httpx.Request("POST", "/"), response=response)


@pytest.fixture
def client() -> PatientClient:
    return PatientClient.__new__(PatientClient)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a client does: good-byes and seconds of sleep."""
    done: list[str] = []

    def leave(client: object, request: DeactivateNodeRequest) -> DeactivateNodeResponse:
        done.append(f"leave {request.node_id}")
        return DeactivateNodeResponse()

    monkeypatch.setattr(FleetHttpClient, "DeactivateNode", leave)
    monkeypatch.setattr(supernode.time, "sleep", lambda seconds: done.append(f"sleep {seconds:g}"))
    return done


def answers(
    monkeypatch: pytest.MonkeyPatch, *given: httpx.HTTPStatusError | ActivateNodeResponse
) -> None:
    left = iter(given)

    def activate(client: object, request: ActivateNodeRequest) -> ActivateNodeResponse:
        answer = next(left)
        if isinstance(answer, httpx.HTTPStatusError):
            raise answer
        return answer

    monkeypatch.setattr(FleetHttpClient, "ActivateNode", activate)


def test_a_node_that_is_let_in_starts_at_once(
    monkeypatch: pytest.MonkeyPatch, client: PatientClient, calls: list[str]
) -> None:
    answers(monkeypatch, ActivateNodeResponse(node_id=3))
    assert client.ActivateNode(ActivateNodeRequest()).node_id == 3
    assert calls == []


def test_a_node_that_is_refused_asks_again_and_is_seen_to_have_been_away(
    monkeypatch: pytest.MonkeyPatch,
    client: PatientClient,
    calls: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    no, yes = refusal(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED), ActivateNodeResponse(node_id=3)
    answers(monkeypatch, no, no, yes, yes)
    assert client.ActivateNode(ActivateNodeRequest()).node_id == 3
    assert calls == ["sleep 5", "sleep 5", "leave 3", "sleep 5"]
    assert capsys.readouterr().out.count("does not let this node in") == 1


def test_other_refusals_end_the_node(
    monkeypatch: pytest.MonkeyPatch, client: PatientClient, calls: list[str]
) -> None:
    answers(monkeypatch, refusal(ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL))
    with pytest.raises(httpx.HTTPStatusError):
        client.ActivateNode(ActivateNodeRequest())
    assert calls == []


def test_flowers_supernode_is_given_the_client_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_http_connection, "FleetHttpClient", FleetHttpClient)
    monkeypatch.setattr(sys, "argv", ["supernode", "--superlink", "a:9443"])
    seen = []
    monkeypatch.setattr(
        supernode,
        "flower_supernode",
        lambda: seen.append((fleet_http_connection.FleetHttpClient, *sys.argv)),
    )
    supernode.main()
    [(used, *arguments, port)] = seen
    assert used is PatientClient
    assert arguments == ["supernode", "--superlink", "a:9443", "--host", "127.0.0.1", "--port"]
    assert 1024 <= int(port) <= 65535
