"""What server and clients say to each other; the one place that knows the layout of messages.

query     ->  (empty)                            <- `NodeDescription`
train     ->  arrays, config (`TrainRequest`)    <- arrays, metrics (`Update`), where the request
                                                    asks for it also `Evaluation`
evaluate  ->  arrays                             <- evaluation (`Evaluation`)

Nothing of a group's partition is in a message: no text, share or embedding; only weights,
counts, names and scores.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from io import BytesIO
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib.format import read_array_header_1_0, read_magic

from pluralllm_app import __version__
from pluralllm_app.core.segments import Floats
from pluralllm_app.scoring.evaluation import GroupEvaluation
from pluralllm_app.scoring.metrics import GroupScores

ARRAYS, CONFIG, METRICS, DESCRIPTION = "arrays", "config", "metrics", "description"
EVALUATION = "evaluation"
WEIGHTS, SCORED, SCORES, SECONDS = "weights", "questions", "scores", "seconds"
PROXIMAL_MU = "proximal-mu"  # set by Flower's FedProx
QUESTIONS, LOSS, JS_DIVERGENCE = "num-examples", "loss", "js-divergence"

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)
Weights = Floats
"""All parameters of the predictor in one vector [P], in the order of its state dict.

One array instead of one per layer: each costs a header to write and to parse, on every trip.
"""


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
        return cls(**{name: fields[name] for name in cls.__annotations__})


def installed() -> str:
    """The versions of the app and of torch that this machine has installed.

    A deployment's node runs the code that the server sends, but with the libraries, and beside the
    `pluralllm` command, of its own. Where no app is installed, the code that was sent is all.
    """
    try:
        app = metadata.version("pluralllm-app")
    except metadata.PackageNotFoundError:
        app = __version__
    # Builds of one version, as 2.13.0+cpu and 2.13.0+cu130, go together.
    return f"{app}, torch {metadata.version('torch').partition('+')[0]}"


@dataclass(frozen=True)
class TrainRequest:
    """What the server asks of a group besides training the weights it sends."""

    round: int  # 1-based
    evaluate: bool  # score the received weights as well, before they are trained
    experiment: str  # 32 hexadecimal digits: the run, also where it is resumed
    moments_of: int  # the group's last round that counted, whose moments to go on from; 0: none

    def to_record(self) -> ConfigRecord:
        return ConfigRecord(asdict(self))

    @classmethod
    def from_record(cls, record: ConfigRecord) -> "TrainRequest":
        """Read a request; raises ValueError where the record is not one.

        The experiment becomes the name of a directory on the node.
        """
        fields = {name: record.get(name) for name in cls.__annotations__}
        for name, kind in cls.__annotations__.items():
            if type(fields[name]) is not kind:
                raise ValueError(f"the train message has no valid {name!r}")
        request = cls(**cast(dict[str, Any], fields))
        if not re.fullmatch("[0-9a-f]{32}", request.experiment):
            raise ValueError("the train message names no experiment")
        return request


@dataclass(frozen=True)
class Update:
    """A group's answer to a train message."""

    weights: Weights
    questions: int  # train questions, the update's weight in the average
    loss: float
    js_divergence: float
    seconds: float  # that the local steps took at the node

    def to_content(self) -> RecordDict:
        metrics = MetricRecord(
            {
                QUESTIONS: self.questions,
                LOSS: self.loss,
                JS_DIVERGENCE: self.js_divergence,
                SECONDS: self.seconds,
            }
        )
        return RecordDict({ARRAYS: weights_to_record(self.weights), METRICS: metrics})

    @classmethod
    def from_content(cls, content: RecordDict, parameters: int, questions: int) -> "Update":
        """Read and check an update; raises ValueError saying what is wrong with it.

        Args:
            content: untrusted content of the reply.
            parameters: how many the predictor has.
            questions: train questions the group has; the update must report this count.
        """
        if set(content) - {EVALUATION} != {ARRAYS, METRICS}:
            raise ValueError("it is not an update: one record of arrays, one of metrics")
        metrics: Mapping[str, Any] = record_of(content, METRICS, MetricRecord)
        if set(metrics) != {QUESTIONS, LOSS, JS_DIVERGENCE, SECONDS}:
            raise ValueError("its metrics are not those of an update")
        claimed, loss, divergence, seconds = (
            _finite(metrics[key]) for key in (QUESTIONS, LOSS, JS_DIVERGENCE, SECONDS)
        )
        if claimed != questions:
            raise ValueError(f"it claims {claimed:.0f} train questions, the roster has {questions}")
        if divergence < 0 or seconds < 0:
            raise ValueError(f"its {JS_DIVERGENCE} or {SECONDS} are negative")
        weights = record_to_weights(record_of(content, ARRAYS, ArrayRecord))
        check_weights(weights, parameters)
        return cls(weights, questions, loss, divergence, seconds)


@dataclass(frozen=True)
class Evaluation(GroupEvaluation):
    """How a group scored the weights it was sent."""

    loss: float
    seconds: float  # that scoring took at the node

    def to_content(self) -> RecordDict:
        record = MetricRecord(
            {
                LOSS: self.loss,
                SECONDS: self.seconds,
                SCORED: self.scores.questions.tolist(),
                SCORES: self.scores.scores.tolist(),
            }
        )
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
        metrics: Mapping[str, Any] = record_of(content, EVALUATION, MetricRecord)
        if set(metrics) != {LOSS, SECONDS, SCORED, SCORES}:
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
        loss, seconds = _finite(metrics[LOSS]), _finite(metrics[SECONDS])
        if seconds < 0:
            raise ValueError(f"its {SECONDS} are negative")
        return cls(GroupScores(scored, scores.astype(np.float64)), loss, seconds)


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


def weights_to_record(weights: Weights) -> ArrayRecord:
    """Pack weights for a message."""
    return ArrayRecord({WEIGHTS: Array(weights)})


def record_to_weights(record: ArrayRecord) -> Weights:
    """Unpack weights of a message as a read-only vector, without a copy.

    The bytes are untrusted: only a plain vector of floats in numpy's format 1.0 is read.

    Raises:
        ValueError: anything else.
    """
    if set(record) != {WEIGHTS}:
        raise ValueError("its arrays are not the weights of a predictor")
    data = record[WEIGHTS].data
    stream = BytesIO(data)
    try:
        version = read_magic(stream)
        shape, _, dtype = read_array_header_1_0(stream)
    except Exception as error:  # numpy parses the header, of which some raise no ValueError
        raise ValueError("its weights are not in numpy's format 1.0") from error
    if version != (1, 0):
        raise ValueError("its weights are not in numpy's format 1.0")
    if dtype not in (np.float32, np.float64) or len(shape) != 1:
        raise ValueError(f"its weights are {dtype} {shape}, not a vector of floats")
    if len(data) - stream.tell() != shape[0] * dtype.itemsize:
        raise ValueError("its weights are cut off, or longer than they say")
    return np.frombuffer(data, dtype, offset=stream.tell())


def check_weights(weights: Weights, parameters: int) -> None:
    """Raise ValueError unless `weights` is a finite float32 vector of `parameters` numbers."""
    if weights.shape != (parameters,) or weights.dtype != np.float32:
        raise ValueError(
            f"its weights are {weights.dtype} {weights.shape}, not float32 ({parameters},)"
        )
    if not np.isfinite(weights).all():
        raise ValueError("its weights are not all finite")
