"""A Control API that only keeps nodes, for the commands that need a SuperLink."""

from collections.abc import Callable
from pathlib import Path

import httpx
from click.testing import Result
from flwr.common.serde import user_config_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore.error import ApiErrorCode, FlowerError

from pluralllm_app.cli.main import app
from pluralllm_app.settings import Scalar
from tests.support.command import CliRunner

GROUPS = ["Alder", "Birch", "Élan 中/.."]


class SuperLink:
    """Keeps nodes as the SuperLink's Control API does; `start` runs what is submitted."""

    def __init__(self) -> None:
        self.infos: list[NodeInfo] = []
        self.start: Callable[[dict[str, Scalar]], None]
        self.submitted: dict[str, Scalar]
        self.status: RunStatus | KeyboardInterrupt | None = None

    def ListNodes(self, _: ListNodesRequest) -> ListNodesResponse:
        return ListNodesResponse(nodes_info=self.infos)

    def RegisterNode(self, request: RegisterNodeRequest) -> RegisterNodeResponse:
        if any(info.public_key == request.public_key for info in self.infos):
            error = FlowerError(ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE, "in use")
            response = httpx.Response(409, json=error.to_json("in use"))
            raise httpx.HTTPStatusError("", request=httpx.Request("POST", "/"), response=response)
        info = NodeInfo(
            node_id=len(self.infos) + 1,
            status="registered",
            registered_at="2026-01-02T03:04:05+00:00",
            public_key=request.public_key,
            name=request.name,
        )
        self.infos.append(info)
        return RegisterNodeResponse(node_id=info.node_id)

    def StartRun(self, request: StartRunRequest) -> StartRunResponse:
        self.status = RunStatus(status="running")
        self.start(user_config_from_proto(request.override_config))
        return StartRunResponse(run_id=7)

    def ListRuns(self, request: ListRunsRequest) -> ListRunsResponse:
        if self.status is None:
            raise httpx.ConnectError("refused")
        if isinstance(self.status, KeyboardInterrupt):
            raise self.status
        return ListRunsResponse(run_dict={request.run_id: Run(status=self.status)})

    def close(self) -> None:
        pass

    def UnregisterNode(self, request: UnregisterNodeRequest) -> UnregisterNodeResponse:
        self.infos[request.node_id - 1].status = "unregistered"
        return UnregisterNodeResponse()


def deploy(*arguments: str | Path) -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["deploy", *map(str, arguments)])
