"""What server and clients say to each other; the one place that knows the layout of messages.

query     ->  in a deployment all keys, see `peers`  <- `NodeDescription`
train     ->  arrays, config (`Request`)         <- arrays, metrics (`Update`), where the request
                                                    asks for it also `Evaluation`
evaluate  ->  arrays                             <- evaluation (`Evaluation`; `MaskedScores` where
                                                    these are summed)

The arrays are what the run's learner sends and contributes. No text is in a message, and of the GPO
learner no share and no embedding either: only weights, counts, names and scores.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pluralllm_app import __version__
from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.federation.bounds import MOST_HEADER, MOST_TEXT, check
from pluralllm_app.learning.base import Contribution, Form, Request
from pluralllm_app.predictors.base import LEVELS, Arrays
from pluralllm_app.scoring.evaluation import GroupEvaluation
from pluralllm_app.scoring.metrics import GroupScores

ARRAYS, CONFIG, METRICS, DESCRIPTION = "arrays", "config", "metrics", "description"
EVALUATION = "evaluation"
PACKED = "packed"
SCORED, SCORES, LOSS, SECONDS = "questions", "scores", "loss", "seconds"
COVERAGE = "coverage"
QUESTIONS = "num-examples"

_REQUEST = {  # key in a message: field, type
    "round": ("round", int),
    "evaluate": ("evaluate", bool),
    "experiment": ("experiment", str),
    "moments_of": ("counted", int),
}
_NUMBERS = (np.float32, np.float64, np.int64, np.uint64)

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


@dataclass(frozen=True)
class NodeDescription:
    """A node's answer to the query: which group it holds, and of which survey."""

    group: str
    role: str  # "train" or "evaluation"
    questions: int
    pool: int  # questions that contexts come from; a train group trains on them
    name: str  # of the survey
    survey_questions: int  # that the survey has; its questions are numbered below it
    fingerprint: str
    dim: int
    metric: str
    version: str  # of the app and of torch, see `installed`
    nodes: int  # in a simulation, how many it has; else 0

    def to_content(self) -> RecordDict:
        return RecordDict({DESCRIPTION: ConfigRecord(asdict(self))})

    @classmethod
    def from_content(cls, content: RecordDict) -> "NodeDescription":
        """Read a description; raises ValueError where the record is not one."""
        fields: Mapping[str, Any] = record_of(content, DESCRIPTION, ConfigRecord)
        if not fields:
            raise ValueError("it sent no description")
        for name, kind in cls.__annotations__.items():
            if type(fields.get(name)) is not kind:
                raise ValueError(f"its description has no valid {name!r}")
            if kind is str and len(fields[name]) > MOST_TEXT:
                raise ValueError(f"its {name} is longer than {MOST_TEXT} characters")
            if kind is str and (found := hidden(fields[name])):
                raise ValueError(f"its {name} has the hidden character {found}")
        return cls(**{name: fields[name] for name in cls.__annotations__})


@cache
def installed() -> str:
    """The versions of the app and of torch that this machine has installed.

    A simulation may run without an installed app, from the copy that Flower made.
    """
    try:
        app = metadata.version("pluralllm-app")
    except metadata.PackageNotFoundError:
        app = __version__
    # Builds of one version, as 2.13.0+cpu and 2.13.0+cu130, go together.
    return f"{app}, torch {metadata.version('torch').partition('+')[0]}"


def request_to_record(request: Request) -> ConfigRecord:
    """Pack what the server asks of a group."""
    fields = {name: getattr(request, field) for name, (field, _) in _REQUEST.items()}
    return ConfigRecord({**request.options, **fields})


def record_to_request(record: ConfigRecord) -> Request:
    """Unpack what the server asks of a group; raises ValueError where it is no request.

    The experiment becomes the name of a directory on the node.
    """
    fields: dict[str, Any] = {}
    for name, (field, kind) in _REQUEST.items():
        if type(record.get(name)) is not kind:
            raise ValueError(f"the train message has no valid {name!r}")
        fields[field] = record[name]
    if not re.fullmatch("[0-9a-f]{32}", fields["experiment"]):
        raise ValueError("the train message names no experiment")
    options = {name: value for name, value in record.items() if name not in _REQUEST}
    for name, value in options.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"the train message has no valid {name!r}")
    return Request(**fields, options=cast(dict[str, float], options))


@dataclass(frozen=True)
class Update:
    """A group's answer to a train message."""

    contribution: Contribution
    seconds: float  # that learning took at the node

    def to_content(self) -> RecordDict:
        metrics = MetricRecord(
            {
                QUESTIONS: int(self.contribution.weight),
                SECONDS: self.seconds,
                **self.contribution.metrics,
            }
        )
        return RecordDict({ARRAYS: arrays_to_record(self.contribution.arrays), METRICS: metrics})

    @classmethod
    def from_content(cls, content: RecordDict, form: Form, questions: int) -> "Update":
        """Read and check an update; raises ValueError saying what is wrong with it.

        Args:
            content: untrusted content of the reply.
            form: what contributions look like.
            questions: train questions the group has; the update must report this count.
        """
        if set(content) - {EVALUATION} != {ARRAYS, METRICS}:
            raise ValueError("it is not an update: one record of arrays, one of metrics")
        metrics: Mapping[str, Any] = record_of(content, METRICS, MetricRecord)
        if set(metrics) != {QUESTIONS, SECONDS, *form.metrics}:
            raise ValueError("its metrics are not those of an update")
        numbers = {name: _finite(value) for name, value in metrics.items()}
        claimed, seconds = numbers.pop(QUESTIONS), numbers.pop(SECONDS)
        if claimed != questions:
            raise ValueError(f"it claims {claimed:.0f} train questions, the roster has {questions}")
        if seconds < 0:
            raise ValueError(f"its {SECONDS} are negative")
        for name, value in numbers.items():
            check("train", name, value)
        arrays = record_to_arrays(record_of(content, ARRAYS, ArrayRecord))
        contribution = Contribution(arrays, questions, numbers)
        form.check(contribution)
        return cls(contribution, seconds)


@dataclass(frozen=True, kw_only=True)
class Evaluation(GroupEvaluation):
    """How a group scored the weights it was sent."""

    seconds: float  # that scoring took at the node

    def to_content(self) -> RecordDict:
        record = MetricRecord(
            {
                SECONDS: self.seconds,
                SCORED: self.scores.questions.tolist(),
                SCORES: self.scores.scores.tolist(),
            }
        )
        if self.loss is not None:
            record[LOSS] = self.loss
        if self.coverage is not None:
            record[COVERAGE] = list(self.coverage)
        return RecordDict({EVALUATION: record})

    @classmethod
    def from_content(
        cls, content: RecordDict, questions: range, survey_questions: int
    ) -> "Evaluation":
        """Read and check an evaluation; raises ValueError saying what is wrong with it.

        Args:
            content: untrusted content of the reply.
            questions: how many questions the group may be scored on.
            survey_questions: how many the survey has.
        """
        if record_of(content, EVALUATION, ConfigRecord):
            raise ValueError("the node's policy lets no scores of its group leave")
        metrics: Mapping[str, Any] = record_of(content, EVALUATION, MetricRecord)
        if {*metrics, LOSS, COVERAGE} != {LOSS, COVERAGE, SECONDS, SCORED, SCORES}:
            raise ValueError("it is not an evaluation")
        scored, scores = np.array(metrics[SCORED]), np.array(metrics[SCORES])
        if scored.ndim != 1 or scored.shape != scores.shape:
            raise ValueError("its scores do not match its questions")
        if len(scored) not in questions:
            raise ValueError(
                f"it scores {len(scored)} questions, not {questions[0]} to {questions[-1]}"
            )
        whole = np.issubdtype(scored.dtype, np.integer)  # an empty list is of floats
        if not (whole and scored[0] >= 0 and (np.diff(scored) > 0).all()):
            raise ValueError("its questions are not ascending whole numbers")
        if scored[-1] >= survey_questions:
            raise ValueError(f"it scores question {scored[-1]} of a survey of {survey_questions}")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("its scores are not between 0 and 1")
        loss = _finite(metrics[LOSS]) if LOSS in metrics else None
        if loss is not None:
            check("evaluate", LOSS, loss)
        coverage = metrics.get(COVERAGE)
        if coverage is not None and not (
            isinstance(coverage, list)
            and len(coverage) == len(LEVELS)
            and all(0 <= share <= 1 for share in coverage)
        ):
            raise ValueError(f"its {COVERAGE} is not {len(LEVELS)} numbers between 0 and 1")
        seconds = _finite(metrics[SECONDS])
        if seconds < 0:
            raise ValueError(f"its {SECONDS} are negative")
        scores = scores.astype(np.float64)
        return cls(GroupScores(scored, scores), loss, coverage, seconds=seconds)


@dataclass(frozen=True)
class MaskedScores:
    """A group's scores of what it was sent, masked for a secure sum."""

    arrays: Arrays
    seconds: float  # that scoring took at the node

    def to_content(self) -> RecordDict:
        """As a part of a message."""
        seconds = {SECONDS: np.array([self.seconds])}
        return RecordDict({EVALUATION: arrays_to_record({**self.arrays, **seconds})})

    @classmethod
    def from_content(cls, content: RecordDict) -> "MaskedScores":
        """Read masked scores; raises ValueError where there are none. The sum checks them."""
        arrays = record_to_arrays(record_of(content, EVALUATION, ArrayRecord))
        seconds = arrays.pop(SECONDS, np.array([]))
        if seconds.shape != (1,) or not (np.isfinite(seconds[0]) and seconds[0] >= 0):
            raise ValueError(f"its scores have no {SECONDS}, or negative ones")
        return cls(arrays, float(seconds[0]))


def withheld_scores() -> RecordDict:
    """What a node sends in place of an `Evaluation` that its policy keeps."""
    return RecordDict({EVALUATION: ConfigRecord({"withheld": True})})


def _finite(value: Any) -> float:
    if isinstance(value, list) or not np.isfinite(value):
        raise ValueError("its metrics are not finite numbers")
    return float(value)


def record_of(content: RecordDict, key: str, kind: type[Record]) -> Record:
    """The record called `key`; an empty one where there is none of that kind.

    The views by kind that `content` has refer back to it: after their use its arrays stay until
    the garbage collector comes by.
    """
    found = content.get(key)
    return found if isinstance(found, kind) else kind()


def arrays_to_record(arrays: Arrays) -> ArrayRecord:
    """Pack arrays for a message, as one object: Flower sends, stores and fetches each by itself."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(contiguous)
    return ArrayRecord({PACKED: Array("uint8", (len(data),), "safetensors", data)})


def record_to_arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Unpack the arrays of a message, read-only, in the order of their names.

    The bytes are untrusted: only plain numbers in safetensors' format are read.

    Raises:
        ValueError: anything else.
    """
    if set(record) != {PACKED}:
        raise ValueError("its arrays are not packed as one")
    data = record[PACKED].data
    # The header lists the arrays. Each takes time and memory, even an empty one.
    if MOST_HEADER < int.from_bytes(data[:8], "little") <= len(data):
        raise ValueError("the names and shapes of its arrays are too long")
    try:
        # Sorted, since `load` gives them in another order each time.
        arrays = dict(sorted(load(data).items()))
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that numpy lacks
        raise ValueError("its arrays are not in safetensors' format") from error
    for array in arrays.values():
        if array.dtype not in _NUMBERS:  # a name is the sender's, and told to nobody
            raise ValueError(f"its arrays are {array.dtype} {array.shape}, not numbers")
        array.setflags(write=False)
    return arrays
