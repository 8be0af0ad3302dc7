"""Replies are untrusted: each way of being wrong is refused, and said."""

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from pluralllm_app.federation.messages import (
    ARRAYS,
    EVALUATION,
    METRICS,
    PACKED,
    Evaluation,
    NodeDescription,
    Update,
    arrays_to_record,
    record_to_arrays,
    record_to_request,
    request_to_record,
)
from pluralllm_app.learning.base import ArrayForm, Contribution, Form, Request
from pluralllm_app.scoring.metrics import GroupScores

PARAMETERS = 3
FORM = Form(
    {"weights": ArrayForm(np.dtype(np.float32), (PARAMETERS,))},
    {"loss": -math.inf, "js-divergence": 0.0},
)
TRAINED = np.ones(PARAMETERS, np.float32)
UPDATE = Update(Contribution({"weights": TRAINED}, 27, {"loss": -0.5, "js-divergence": 0.1}), 2.5)
DESCRIPTION = NodeDescription(
    "Élan 中/..", "train", 30, 27, "tiny", 40, "ab12", 6, "jensen-shannon", "0.1, torch 2.0", 5
)


def test_messages_survive_the_trip() -> None:
    update = Update.from_content(UPDATE.to_content(), FORM, 27)
    assert (update.contribution.weight, update.seconds) == (27, 2.5)
    assert update.contribution.metrics == {"loss": -0.5, "js-divergence": 0.1}
    assert update.contribution.arrays["weights"].tolist() == [1, 1, 1]
    assert NodeDescription.from_content(DESCRIPTION.to_content()) == DESCRIPTION
    scores = GroupScores(np.array([3, 7]), np.array([0.25, 1.0]))
    sent = Evaluation(scores, -1.5, seconds=0.25).to_content()
    assert Update.from_content(RecordDict({**UPDATE.to_content(), **sent}), FORM, 27)
    evaluation = Evaluation.from_content(sent, range(2, 3), 8)
    assert (evaluation.loss, evaluation.seconds) == (-1.5, 0.25)
    assert evaluation.scores.questions.tolist() == [3, 7]
    assert evaluation.scores.scores.tolist() == [0.25, 1.0]


def changed_update(weights: list | np.ndarray | None = None, **metrics: object) -> RecordDict:
    content = UPDATE.to_content()
    if weights is not None:
        array = np.asarray(weights, getattr(weights, "dtype", "f4"))
        content[ARRAYS] = arrays_to_record({"weights": array})
    values = dict(content.metric_records[METRICS]) | metrics
    content[METRICS] = MetricRecord({key: value for key, value in values.items() if value != "-"})
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RecordDict(), "not an update"),
        (changed_update(loss=float("nan")), "not finite"),
        (changed_update(**{"js-divergence": -0.1}), "its js-divergence is below 0"),
        (changed_update(seconds=-1.0), "negative"),
        (RecordDict({**UPDATE.to_content(), "more": MetricRecord()}), "not an update"),
        (RecordDict({ARRAYS: MetricRecord(), METRICS: MetricRecord()}), "metrics are not those"),
        (changed_update(loss=[0.1]), "not finite numbers"),
        (changed_update(loss="-"), "metrics are not those"),
        (changed_update(extra=1.0), "metrics are not those"),
        (changed_update(**{"num-examples": 10_000}), "claims 10000 train questions"),
        (changed_update([1.0, np.nan, 1.0]), "not all finite"),
        (changed_update([1.0, np.inf, 1.0]), "not all finite"),
        (changed_update([1.0, 1.0]), "float32 (2,), not float32 (3,)"),
        (changed_update([[1.0, 1.0, 1.0]]), "float32 (1, 3)"),
        (changed_update(np.ones(3)), "float64 (3,)"),
    ],
)
def test_bad_updates_are_refused(content: RecordDict, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Update.from_content(content, FORM, 27)
    assert message in str(caught.value)


def test_other_arrays_are_refused() -> None:
    content = UPDATE.to_content()
    content[ARRAYS] = arrays_to_record({"embeddings": TRAINED})
    with pytest.raises(ValueError, match="its arrays are not weights"):
        Update.from_content(content, FORM, 27)


def test_all_arrays_are_one_object() -> None:
    """Flower takes several steps over the network for each."""
    arrays = {"b": np.eye(3), "a": TRAINED, "c": np.zeros((0, 4)), "d": np.array([7], np.uint64)}
    record = arrays_to_record(arrays | {"turned": np.ones((3, 2)).T})
    assert len(record) == 1
    found = record_to_arrays(record)
    assert found.pop("turned").shape == (2, 3)
    assert {name: (a.dtype, a.tolist()) for name, a in found.items()} == {
        name: (a.dtype, a.tolist()) for name, a in arrays.items()
    }
    with pytest.raises(ValueError, match="read-only"):
        found["b"][0] = 1.0


def test_arrays_come_in_one_order() -> None:
    """What goes through them in turn, as a check that names the first fault, has one outcome."""
    names = [f"{letter}{number}" for letter in "zax" for number in range(9)]
    assert [*record_to_arrays(arrays_to_record(dict.fromkeys(names, TRAINED)))] == sorted(names)


def test_no_name_of_an_array_is_told() -> None:
    """It is the sender's, and could be long or forge a line."""
    content = UPDATE.to_content()
    for name in ("a\x1b]0;b\x07\nc", "n" * 1000):
        content[ARRAYS] = arrays_to_record({name: np.ones(3, np.int8)})
        with pytest.raises(ValueError, match=r"^its arrays are int8 \(3,\), not numbers$"):
            Update.from_content(content, FORM, 27)


@pytest.mark.parametrize("names", [[], ["weights"], [PACKED, "weights"]])
def test_arrays_that_are_not_packed_are_refused(names: list[str]) -> None:
    content = UPDATE.to_content()
    content[ARRAYS] = ArrayRecord({name: Array(TRAINED) for name in names})
    with pytest.raises(ValueError, match="its arrays are not packed as one"):
        Update.from_content(content, FORM, 27)


def headed(header: str, content: bytes = b"") -> bytes:
    """Bytes that begin as safetensors' do, with another header."""
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + content


def tensor(kind: str, shape: str, end: int, name: str = "weights") -> str:
    return f'"{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":[0,{end}]}}'


def of_one(kind: str = "F32", shape: str = "[3]", end: int = 12) -> bytes:
    return headed("{" + tensor(kind, shape, end) + "}", bytes(end))


def test_bytes_of_one_vector_are_read() -> None:
    """Else nothing below would be refused for its own sake."""
    record = ArrayRecord({PACKED: Array("uint8", (1,), "safetensors", of_one())})
    assert record_to_arrays(record)["weights"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "format"),
        (b"garbage", "format"),
        (b"\x80\x04N.", "format"),
        (b"PK\x03\x04" + b"0" * 60, "format"),
        (b"\x93NUMPY\x01\x00" + b" " * 120, "format"),
        (headed("[" * 5000), "format"),
        (headed("[]"), "format"),
        (headed("{"), "format"),
        ((2**62).to_bytes(8, "little") + b"{}", "format"),
        (headed("{" + ",".join(tensor("F32", "[0]", 0, f"a{i}") for i in range(2000)) + "}"),
         "too long"),
        (of_one(shape="[" + "1," * 70 + "3]"), "format"),
        (of_one(shape="[0,9223372036854775808]", end=0), "format"),
        (of_one()[:-1], "format"),
        (of_one() + b"0", "format"),
        (of_one(shape="[3000000000000]"), "format"),
        (of_one(shape="[4294967296,4294967296,3]"), "format"),
        (of_one(shape="[-3]"), "format"),
        (headed("{" + tensor("F32", "[3]", 12) + "," + tensor("F32", "[3]", 12, "b") + "}",
                bytes(12)), "format"),
        (headed("{" + tensor("F32", "[3]", 12) + "," + tensor("F32", "[2]", 8) + "}", bytes(12)),
         "format"),
        (of_one("OBJECT"), "format"),
        (of_one("F8_E4M3", "[12]"), "format"),
        (of_one("BF16", "[6]"), "format"),
        (of_one("I8", "[12]"), "not numbers"),
        (of_one("BOOL", "[12]"), "not numbers"),
        (headed("{}"), "its arrays are not weights"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_plain_vector_are_refused(data: bytes, message: str) -> None:
    content = UPDATE.to_content()
    content[ARRAYS] = ArrayRecord({PACKED: Array("uint8", (len(data),), "safetensors", data)})
    with pytest.raises(ValueError, match=message):
        Update.from_content(content, FORM, 27)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": 0.1}, "not an evaluation"),
        ({"more": 0.1, "questions": [1], "scores": [0.5]}, "not an evaluation"),
        ({"loss": 0.1, "questions": [1], "scores": [0.1, 0.2]}, "do not match"),
        ({"loss": 0.1, "questions": [], "scores": []}, "scores 0 questions, not 1 to 4"),
        ({"loss": 0.1, "questions": [1] * 5, "scores": [0.1] * 5}, "scores 5 questions"),
        ({"loss": 0.1, "questions": [1, 1], "scores": [0.1, 0.2]}, "ascending"),
        ({"loss": 0.1, "questions": [1, 2, 1], "scores": [0.1, 0.2, 0.3]}, "ascending"),
        ({"loss": 0.1, "questions": [-1, 1], "scores": [0.1, 0.2]}, "ascending"),
        ({"loss": 0.1, "questions": [1.5, 2.5], "scores": [0.1, 0.2]}, "ascending"),
        ({"loss": 0.1, "questions": [1, 5], "scores": [0.1, 0.2]}, "question 5 of a survey of 5"),
        ({"loss": float("inf"), "questions": [1], "scores": [0.1]}, "not finite"),
        ({"loss": 0.1, "questions": [1], "scores": [float("nan")]}, "between 0 and 1"),
        ({"loss": 0.1, "questions": [1], "scores": [1.5]}, "between 0 and 1"),
        ({"loss": 0.1, "seconds": -1.0, "questions": [1], "scores": [0.5]}, "negative"),
    ],
)
def test_bad_evaluations_are_refused(metrics: dict, message: str) -> None:
    record = MetricRecord({"seconds": 0.1} | metrics)
    with pytest.raises(ValueError, match=message):
        Evaluation.from_content(RecordDict({EVALUATION: record}), range(1, 5), 5)


def test_a_predictor_without_a_likelihood_has_no_loss() -> None:
    scores = GroupScores(np.array([3]), np.array([0.25]))
    content = Evaluation(scores, None, seconds=0.25).to_content()
    assert Evaluation.from_content(content, range(1, 2), 8).loss is None


def test_no_scores_of_a_group_that_holds_nothing_out_are_refused() -> None:
    record = MetricRecord({"loss": 0.1, "seconds": 0.1, "questions": [], "scores": []})
    with pytest.raises(ValueError, match="ascending whole numbers"):
        Evaluation.from_content(RecordDict({EVALUATION: record}), range(0, 1), 5)


REQUEST = Request(
    round=3,
    evaluate=True,
    experiment="0123456789abcdef" * 2,
    counted=2,
    options={"proximal-mu": 0.1},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"experiment": "../" * 10 + "ab"}, "no experiment"),
        ({"round": "3"}, "no valid 'round'"),
        ({"evaluate": 1}, "no valid 'evaluate'"),
        ({"proximal-mu": math.nan}, "no valid 'proximal-mu'"),
        ({"proximal-mu": "much"}, "no valid 'proximal-mu'"),
    ],
)
def test_train_requests(change: dict, message: str | None) -> None:
    record = ConfigRecord({**request_to_record(REQUEST), **change})
    if message is None:
        assert record_to_request(record) == REQUEST
    else:
        with pytest.raises(ValueError, match=message):
            record_to_request(record)


@pytest.mark.parametrize("field", ["group", "role", "name", "metric", "version"])
def test_descriptions_that_drive_a_terminal_are_refused(field: str) -> None:
    content = DESCRIPTION.to_content()
    content["description"] = ConfigRecord(dict(content["description"]) | {field: "a\x1b[2J"})
    with pytest.raises(ValueError, match=rf"its {field} has the hidden character U\+001B"):
        NodeDescription.from_content(content)


def test_bad_descriptions_are_refused() -> None:
    with pytest.raises(ValueError, match="no description"):
        NodeDescription.from_content(RecordDict())
    content = DESCRIPTION.to_content()
    content["description"] = ConfigRecord(dict(content["description"]) | {"questions": "many"})
    with pytest.raises(ValueError, match="no valid 'questions'"):
        NodeDescription.from_content(content)
