"""What goes wrong in a round is recorded by group and reason, and the run goes on if it can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, MessageType, RecordDict

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.messages import (
    ARRAYS,
    EVALUATION,
    METRICS,
    arrays_to_record,
    record_to_arrays,
)
from pluralllm_app.federation.roster import error_reason
from pluralllm_app.learning import gpo as gpo_learner
from pluralllm_app.learning.gpo import WEIGHTS
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config, broken, failing, in_round, read, run
from tests.support.weights import saved_weights


def test_the_text_of_an_unexpected_error_stays_on_the_node(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(*_: Any, **__: Any) -> None:
        raise KeyError("0.123456 of Birch said so")

    monkeypatch.setattr(gpo_learner, "train_group", leak)
    with pytest.raises(FederationError):
        run(config)
    _, rounds = read(config)
    reasons = {failure["reason"] for failure in rounds[-1]["failures"]}
    assert len(reasons) == 1
    assert reasons.pop().startswith("KeyError in test_round_faults.py, line")
    for file in ("run.json", "rounds.jsonl"):
        assert "0.123456" not in (Path(str(config["out"])) / file).read_text()


RAY = """<class 'flwr.clientapp.client_app.ClientAppException'>:<'\x1b[36mray::ClientAppActor.run()
  File "ray_actor.py", line 59, in run
    raise ClientAppException(str(ex)) from ex
flwr.clientapp.client_app.ClientAppException:
Exception ClientAppException occurred. Message: survey file b.parquet is missing'>"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RAY, "survey file b.parquet is missing"),
        (
            "<class 'ray.exceptions.ActorDiedError'>:<'The actor died.\n\tip: 1.2.3.4'>",
            "The actor died.",
        ),
        ("Node Unavailable", "Node Unavailable"),
        (RAY.replace("missing", "gone\nRound 3: all is well"), "survey file b.parquet is gone"),
        (RAY.replace("missing", "x" * 10**6), f"survey file b.parquet is {'x' * 975}"),
        ("", "error 3"),
        ("<class 'a.B'>:<''>", "error 3"),  # an exception without a word must not end the run
    ],
)
def test_reasons_are_told_without_tracebacks(config: Config, text: str, reason: str) -> None:
    LocalGrid(client_app.app, config, nodes=1)
    request = Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
    assert error_reason(Message(Error(code=3, reason=text), reply_to=request)) == reason


def test_a_group_that_raises_is_recorded_and_the_run_goes_on(config: Config) -> None:
    reply = failing(in_round(3, 1))
    record, rounds = run(config | {"rounds": 4}, reply=reply)
    assert record["status"] == "completed"
    assert rounds[3]["failures"] == [
        {"group": "Birch", "phase": "train", "reason": "out of memory"}
    ]
    assert set(rounds[3]["train"]["groups"]) == {"Alder", "Cedar"}
    assert set(rounds[4]["train"]["groups"]) == {"Alder", "Birch", "Cedar"}


def test_below_the_quorum_the_run_fails_and_says_so(config: Config) -> None:
    reply = failing(in_round(2, 1))
    with pytest.raises(FederationError, match=r"round 2: good updates: 2.*Birch: out of memory"):
        run(config | {"min-train-groups": 3}, reply=reply)
    record, rounds = read(config)
    assert record["status"] == "failed"
    assert "min-train-groups = 3" in record["error"]
    assert rounds[-1]["failures"][0]["group"] == "Birch"


def test_a_silent_group_is_recorded_after_the_timeout(config: Config) -> None:
    hit = in_round(1, 2)

    def reply(partition: int, message: Message) -> Message | None:
        return None if hit(partition, message) else message

    _, rounds = run(config, reply=reply)
    assert rounds[1]["failures"] == [
        {"group": "Cedar", "phase": "train", "reason": "no reply within 0.3 s"}
    ]


def spoil(content: RecordDict) -> None:
    good = record_to_arrays(content.array_records[ARRAYS])[WEIGHTS]
    content[ARRAYS] = arrays_to_record({WEIGHTS: good * np.float32("nan")})


def boast(content: RecordDict) -> None:
    content.metric_records[METRICS]["num-examples"] = 10**9


@pytest.mark.parametrize(
    ("change", "reason"), [(spoil, "not all finite"), (boast, "claims 1000000000 train questions")]
)
def test_a_bad_update_is_refused_and_recorded(
    config: Config, change: Callable[[RecordDict], None], reason: str
) -> None:
    record, rounds = run(config, reply=broken(change, in_round(1, 0)))
    assert record["status"] == "completed"
    (failure,) = rounds[1]["failures"]
    assert failure["group"] == "Alder"
    assert reason in failure["reason"]
    final = saved_weights(Path(str(config["out"])) / "model")
    assert all(tensor.isfinite().all() for tensor in final.values())


def test_scores_of_questions_that_the_survey_lacks_are_refused(config: Config) -> None:
    def reach(content: RecordDict) -> None:
        record = content.metric_records[EVALUATION]
        record["questions"] = [*record["questions"][:-1], 2**40]

    reserving = config | {"reserved-fraction": 0.1}
    _, rounds = run(reserving, reply=broken(reach, in_round(1, 0)))
    (failure,) = rounds[0]["failures"]
    assert (failure["group"], failure["phase"]) == ("Alder", "evaluate")
    assert "question 1099511627776 of a survey of 30" in failure["reason"]


def test_a_missing_train_group_cannot_make_a_round_best(config: Config) -> None:
    reply = failing(in_round(2, 0), "gone")  # which scores the weights of round 1 before it trains
    record, rounds = run(config, reply=reply)
    assert rounds[1]["evaluation"]["roles"]["train"]["groups"] == 2
    assert rounds[1]["failures"] == [{"group": "Alder", "phase": "evaluate", "reason": "gone"}]
    assert rounds[2]["failures"] == [{"group": "Alder", "phase": "train", "reason": "gone"}]
    assert record["best_round"] != 1


def test_an_update_counts_without_its_evaluation(config: Config) -> None:
    def forget(content: RecordDict) -> None:
        del content[EVALUATION]

    _, rounds = run(config, reply=broken(forget, in_round(1, 0)))
    (failure,) = rounds[0]["failures"]
    assert failure == {
        "group": "Alder",
        "phase": "evaluate",
        "reason": "refused: it is not an evaluation",
    }
    assert rounds[1]["failures"] == []
    assert "Alder" in rounds[1]["train"]["groups"]


def test_weights_that_diverge_end_the_run(config: Config) -> None:
    with pytest.raises(FederationError, match=r"the weights fedavgm gave are not usable"):
        run(config | {"strategy": "fedavgm", "fedavgm.learning-rate": 1e300})


def test_a_run_that_cannot_score_anything_fails(config: Config) -> None:
    def reply(partition: int, message: Message) -> Message:
        if message.metadata.message_type == "evaluate":
            raise RuntimeError("out of memory")
        message.content.pop(EVALUATION, None)
        return message

    with pytest.raises(FederationError, match=r"round 0: no group could be scored"):
        run(config, reply=reply)
    _, rounds = read(config)
    assert [entry["round"] for entry in rounds] == [0]
    assert len(rounds[0]["failures"]) == 5
