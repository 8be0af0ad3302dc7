"""A federation of real processes whose nodes misbehave, and its runs as their directories tell."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pluralllm_app.errors import UserError
from pluralllm_app.federation.state import RunState
from pluralllm_app.records.lock import locked_run
from pluralllm_app.records.writer import STATE
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN
from tests.support import faulty_client
from tests.support.deployment import Deployment, Process
from tests.support.waiting import wait_until

SENT = "Sent successfully"  # what a SuperNode prints after each reply
WAITS = "does not let this node in"


class Federation(Deployment):
    """A deployment of the train groups whose nodes can misbehave, and whose disk can be full."""

    def __init__(self, path: Path, survey: PreparedSurvey, groups: Sequence[str] = TRAIN) -> None:
        super().__init__(path, survey, groups)
        shutil.copy(faulty_client.__file__, self.path / "app" / "pluralllm_app")
        project = self.path / "app" / "pyproject.toml"
        text = project.read_text("utf-8")
        project.write_text(text.replace(".client_app:app", ".faulty_client:app"), "utf-8")
        self.small = self.path / "small"
        self.small.mkdir()
        # A file system of its own, which the server's processes alone see.
        mount = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
        alone = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(self.small)]
        possible = shutil.which("unshare") and not subprocess.run([*alone, "true"]).returncode
        self.alone = alone if possible else []

    def start_superlink(self, prefix: Sequence[str] = ()) -> None:
        """Start the SuperLink, with the small file system where one may be mounted."""
        super().start_superlink([*self.alone, *prefix])

    def plan(self, group: str, faults: dict[int, str]) -> None:
        """Say which fault a group's node has in which round."""
        (self.node_dir(group) / "faults.json").write_text(json.dumps(faults), "utf-8")

    def begun(self, group: str, number: int) -> Path:
        """The file that a node leaves when the fault of a round begins."""
        return self.node_dir(group) / f"fault-{number}"

    def wait_begun(self, group: str, number: int, submitted: Process) -> None:
        """Wait until the fault of a round of a submitted run begins."""
        file = self.begun(group, number)
        wait_until(lambda: file.exists() or submitted.poll() is not None)
        assert file.exists(), self.logs

    def release(self, group: str, number: int, plan: dict[int, str]) -> None:
        """Let a group that waits in a round go on, with another plan."""
        self.plan(group, plan)
        self.begun(group, number).unlink()

    def let_in(self, group: str) -> int:
        """How often the SuperLink has let a group's node in."""
        return self.log(self.slugs[group]).count("SuperNode ID")

    def sent(self, group: str) -> int:
        """How many replies a group's node has sent."""
        return self.log(self.slugs[group]).count(SENT)


@dataclass
class Run:
    """A run directory, read while the run goes on or afterwards."""

    path: Path

    @property
    def fields(self) -> dict[str, Any]:
        """run.json."""
        fields: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        return fields

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """rounds.jsonl."""
        lines = (self.path / "rounds.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def last(self) -> int:
        """The last round whose state is kept; -1 before the first."""
        return RunState.load(file).round if (file := self.path / STATE).exists() else -1

    def ended(self, number: int) -> float:
        """When a round ended."""
        name = f"checkpoints/round-{number:04d}/model.safetensors"
        return (self.path / name).stat().st_mtime

    def is_free(self) -> bool:
        """Whether no process writes the run."""
        try:
            with locked_run(self.path):
                return True
        except UserError:
            return False

    def lost(self) -> int:
        """How many rounds have no result."""
        wanted: int = self.fields["settings"]["rounds"]
        return wanted - sum(one["train"] is not None for one in self.rounds)

    def missed(self, group: str) -> list[int]:
        """The rounds in which a group did not count."""
        return [one["round"] for one in self.rounds[1:] if group not in one["train"]["groups"]]

    def reasons(self, group: str, phase: str = "train") -> dict[int, str]:
        """Why a group failed to train or to be scored, by round."""
        return {
            one["round"]: failure["reason"]
            for one in self.rounds
            for failure in one["failures"]
            if (failure["group"], failure["phase"]) == (group, phase)
        }

    def recovery(self, group: str, number: int, since: float) -> tuple[int, float]:
        """The rounds that a group missed from one on, and the seconds until it counted again."""
        missed = self.missed(group)
        again = next(n for n in range(number, len(self.rounds)) if n not in missed)
        return again - number, self.ended(again) - since

    def check(self, log: str) -> None:
        """Check that the run is completed."""
        assert self.fields["status"] == "completed", (self.fields["error"], log)
