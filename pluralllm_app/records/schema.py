"""What the files of runs and comparisons say, as typed values; no other module knows their JSON.

run.json           RunInfo
rounds.jsonl       RoundEntry, one a line
few-shot.json      FewShot, in the runs of a comparison
comparison.json    ComparisonInfo

Files of every earlier version with the same `schema` number can still be read: what was added since
has a default here, and settings that were added since are filled in with what those runs did.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from pluralllm_app.errors import UserError
from pluralllm_app.scoring.results import EvaluationResult, RoleSummary
from pluralllm_app.settings import ADDED_LATER, Scalar

SCHEMA_VERSION = 1

Phase = Literal["train", "evaluate"]
Status = Literal["running", "completed", "failed", "stopped"]
GroupUpdate = Mapping[str, int | float]
"""What a group said of its part in a round: `questions`, `seconds`, and the learner's metrics."""
Content = TypeVar("Content", bound="RunInfo | RoundEntry | FewShot | ComparisonInfo")

# Marks a field that is left out of the file while it is None or empty.
_OPTIONAL = {"optional": True}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A group that gave nothing usable in a round."""

    group: str
    phase: Phase
    reason: str


@dataclass(frozen=True, kw_only=True)
class SecureSum:
    """How a round was summed securely."""

    groups: int  # whose contributions are in the sum
    cohort: int  # groups that could have been
    threshold: int  # groups without whom it would have stayed closed
    exchanges: int  # besides that of the contributions; those that made keys are in it
    bytes: int  # of keys, shares and masked contributions, both ways
    seconds: float  # from its first message to its last
    bits: Mapping[str, int]
    """By array: each group's numbers were rounded to multiples of 2^-bits. Arrays that are weighted
    were multiplied by the group's weight before."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What a run spends of differential privacy, in all of its rounds together."""

    unit: str  # what is hidden of whom
    epsilon: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class TrainEntry:
    """The training of a round."""

    loss: float | None  # averaged over the groups; None for a learner without a loss
    steps: int  # of the optimiser, one after another
    tasks: int  # of all groups together
    groups: Mapping[str, GroupUpdate] = field(default_factory=dict, metadata=_OPTIONAL)
    seconds: float
    secure_sum: SecureSum | None = field(default=None, metadata=_OPTIONAL)
    epsilon: float | None = field(default=None, metadata=_OPTIONAL)
    """Spent on noise so far, at the delta of the run."""


@dataclass(frozen=True, kw_only=True)
class RoundEntry:
    """A round: how it trained, and how well the predictor that came out of it did."""

    round: int
    train: TrainEntry | None = None
    evaluation: EvaluationResult | None = None
    failures: Sequence[Failure] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RecordedSurvey:
    """Which survey a run is of."""

    name: str
    fingerprint: str
    dim: int  # of the embeddings
    metric: str


@dataclass(frozen=True, kw_only=True)
class RosterEntry:
    """A group of a run."""

    group: str
    role: str  # train or evaluation
    questions: int


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine that recorded a run."""

    platform: str
    processor: str
    instructions: str | None = None  # AVX2, AVX512, ...
    cpus: int | None
    gpus: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """For which nodes a round waits, to be repeated."""

    round: int
    groups: Sequence[str]
    until: str  # ISO 8601


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a run is, and how it ended.

    Survey and roster are None until the groups are known. Only some runs have the last fields.
    """

    schema: int = SCHEMA_VERSION
    status: Status = "running"
    error: str | None = None
    finished: str | None = None  # ISO 8601
    method: str
    started: str  # ISO 8601
    seed: int
    settings: Mapping[str, Scalar]
    survey: RecordedSurvey | None = None
    roster: Sequence[RosterEntry] | None = None
    versions: Mapping[str, str]
    hardware: Hardware
    roster_seconds: float | None = field(default=None, metadata=_OPTIONAL)
    best_round: int | None = field(default=None, metadata=_OPTIONAL)  # whose weights are best/
    best_score: float | None = field(default=None, metadata=_OPTIONAL)
    resumed: Sequence[str] = field(default=(), metadata=_OPTIONAL)  # ISO 8601
    ended_by: Literal["score", "budget"] | None = field(default=None, metadata=_OPTIONAL)
    tracker_error: str | None = field(default=None, metadata=_OPTIONAL)
    refused: Mapping[str, str] = field(default_factory=dict, metadata=_OPTIONAL)
    """Why nodes could not take part, by the names of their groups."""
    waiting: Waiting | None = field(default=None, metadata=_OPTIONAL)
    secure_threshold: int | None = field(default=None, metadata=_OPTIONAL)
    """Of secure sums: how many groups it took to open one."""
    noise: Noise | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class FewShotPoint:
    """How a predictor did on the groups never trained on, from some context questions."""

    context: int  # how many
    alignment: float | None  # mean over the groups; None: the predictor needs more


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """How a run's predictor did from different numbers of context questions."""

    schema: int = SCHEMA_VERSION
    points: Sequence[FewShotPoint]  # by increasing number
    most: int  # context questions that each group can give; greater numbers are left out
    most_group: str  # the group that cannot give more


@dataclass(frozen=True, kw_only=True)
class ComparedSurvey:
    """Which survey a comparison is of."""

    name: str
    fingerprint: str
    path: str
    groups: int


@dataclass(frozen=True, kw_only=True)
class ComparedMethod:
    """A method of a comparison."""

    title: str
    pools_answers: bool
    same_as: str | None  # another method that is the same here, and is run in its place


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must stay the same for a comparison to go on."""

    schema: int = SCHEMA_VERSION
    version: str  # of the app
    survey: str  # digest of questions, embeddings, roles and answers
    settings: Mapping[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class ComparisonInfo:
    """What a comparison is of."""

    identity: Identity
    survey: ComparedSurvey
    settings: Mapping[str, Scalar]
    seeds: Sequence[int]
    methods: Mapping[str, ComparedMethod]


def to_plain(value: Any) -> Any:
    """Turn a value of these types into dicts, lists and scalars, as they stand in its file."""
    if is_dataclass(value):
        found = {each.name: getattr(value, each.name) for each in fields(value)}
        if isinstance(value, RoleSummary) and value.mean_seen is value.mean_reserved is None:
            del found["mean_seen"], found["mean_reserved"]
        for each in fields(value):
            if each.metadata.get("optional") and found[each.name] in (None, (), [], {}):
                del found[each.name]
        return {key: to_plain(content) for key, content in found.items()}
    if isinstance(value, Mapping):
        return {key: to_plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(content) for content in value]
    return value


def from_plain(kind: type[Content], plain: Any) -> Content:
    """Undo `to_plain`.

    Raises:
        ValueError: it is something else; the message names the field.
    """
    return _filled(msgspec.convert(plain, kind))


def encode_line(entry: RoundEntry) -> str:
    """A line of rounds.jsonl.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(to_plain(entry), allow_nan=False) + "\n"


def encode_file(info: RunInfo | FewShot | ComparisonInfo) -> bytes:
    """The content of run.json, few-shot.json or comparison.json."""
    return json.dumps(to_plain(info), indent=2).encode()


def decode(kind: type[Content], text: bytes, file: Path, line: int | None = None) -> Content:
    """Read a file, or one line of it.

    Args:
        kind: what it holds.
        text: its content.
        file: its path, for the message of an error.
        line: number of the line; None for a whole file.

    Raises:
        UserError: it is damaged (the message names file, line and field), or has another format.
    """
    place = f"{file} is damaged" if line is None else f"{file} is damaged in line {line}"
    try:
        content = _filled(msgspec.json.decode(text, type=kind))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place}: {error}: restore it from a copy, or do without {file.parent}"
        ) from error
    holder = content.identity if isinstance(content, ComparisonInfo) else content
    if not isinstance(holder, RoundEntry) and (schema := holder.schema) != SCHEMA_VERSION:
        raise UserError(
            f"{file} has the format {schema}, this version of the app reads {SCHEMA_VERSION}: "
            "use the version that wrote it"
        )
    return content


def _filled(content: Content) -> Content:
    """Fill in settings that were added after the content was written."""
    if isinstance(content, RoundEntry | FewShot):
        return content
    if isinstance(content, ComparisonInfo):
        identity = content.identity
        content = replace(
            content, identity=replace(identity, settings=_with_added(identity.settings))
        )
    return replace(content, settings=_with_added(content.settings))


def _with_added(settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {**settings, **{key: value for key, value in ADDED_LATER.items() if key not in settings}}
