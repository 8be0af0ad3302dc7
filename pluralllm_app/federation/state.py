"""What a run needs to go on after a round as if it had never been cut off."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.errors import FederationError
from pluralllm_app.learning.base import State
from pluralllm_app.records.reader import ROUNDS
from pluralllm_app.records.schema import RoundEntry, decode, from_plain, to_plain
from pluralllm_app.records.writer import STATE

_SENT, _KEPT = "sent.", "kept."


@dataclass
class UsedSums:
    """What a run keeps of its secure sums over the groups of a role."""

    last: int = 0
    """The last number that one may have had: each is used once."""
    alike: list[str] = field(default_factory=list)
    """The groups of the sums that are alike; [] before the first of them."""


@dataclass
class RunState:
    """The state of a run after round `round`, before the learner's state is evaluated."""

    experiment: str  # 32 hexadecimal digits; the nodes keep their moments by it
    learner: State
    round: int = 0
    entry: RoundEntry = field(default_factory=lambda: RoundEntry(round=0))
    """What will be recorded of the round; its evaluation comes with the next round's replies."""
    counted: dict[str, int] = field(default_factory=dict)
    """The last round of each group whose contribution counted."""
    sums: UsedSums = field(default_factory=UsedSums)  # of contributions
    scores: dict[str, UsedSums] = field(default_factory=dict)  # by role

    def pack(self) -> bytes:
        """As the content of a safetensors file."""
        arrays = {_SENT + name: array for name, array in self.learner.sent.items()}
        arrays |= {_KEPT + name: array for name, array in self.learner.kept.items()}
        rest = {
            "experiment": self.experiment,
            "round": self.round,
            "entry": to_plain(self.entry),
            "counted": self.counted,
            "sums": asdict(self.sums),
            "scores": {role: asdict(used) for role, used in self.scores.items()},
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return save(contiguous, metadata={"run": json.dumps(rest)})

    @classmethod
    def load(cls, file: Path) -> "RunState":
        """Read a state back.

        Raises:
            FederationError: it is not there, or damaged.
        """
        try:
            with safe_open(file, framework="numpy") as opened:
                rest = json.loads(opened.metadata()["run"])
                arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            for name, array in arrays.items():
                if not np.isfinite(array).all():
                    raise ValueError(f"{name} is not finite")
            sent, kept = (
                {
                    name.removeprefix(prefix): array
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                }
                for prefix in (_SENT, _KEPT)
            )
            entry = from_plain(RoundEntry, rest.pop("entry"))
            sums = UsedSums(**rest.pop("sums", {}))
            scores = {role: UsedSums(**used) for role, used in rest.pop("scores", {}).items()}
            return cls(learner=State(sent, kept), entry=entry, sums=sums, scores=scores, **rest)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FederationError(f"{file} is damaged ({error}): the run cannot go on") from error


def rewind(out: Path) -> RunState:
    """Read the state of the run in `out`, and cut its record to the rounds before that state's.

    Raises:
        UserError: the state or the record is damaged, the record lacks a round, or it cannot be
            written.
    """
    state = RunState.load(out / STATE)
    record = out / ROUNDS
    try:
        lines = record.read_bytes().split(b"\n")[:-1] if record.exists() else []
        kept = lines[: state.round]
        rounds = [decode(RoundEntry, line, record, at).round for at, line in enumerate(kept, 1)]
        if rounds != list(range(state.round)):
            raise FederationError(
                f"{record} is damaged: the run goes on after round {state.round}, and of rounds "
                f"0 to {state.round - 1} before it, the file has {_shown(rounds)}. Restore it from "
                "a copy, or begin a new run"
            )
        write_atomically(record, b"".join(line + b"\n" for line in kept))
    except OSError as error:
        raise FederationError(
            f"cannot write {record}: {error}. What was there before is whole: mend the cause, then "
            "repeat the command"
        ) from error
    return state


def _shown(rounds: list[int]) -> str:
    return ", ".join(map(str, rounds[:10])) + " ..." * (len(rounds) > 10) if rounds else "none"
