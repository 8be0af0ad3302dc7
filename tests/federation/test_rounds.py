"""Whole federations in this process: the record, the determinism, and every kind of fault."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Error, Message, MessageType, RecordDict

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.messages import (
    ARRAYS,
    CONFIG,
    EVALUATION,
    METRICS,
    arrays_to_record,
    record_to_arrays,
    record_to_request,
)
from pluralllm_app.federation.roster import error_reason
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning import gpo as gpo_learner
from pluralllm_app.learning.gpo import WEIGHTS
from pluralllm_app.learning.local_steps import initial_model, train_group
from pluralllm_app.learning.sampling import chosen_groups
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.conftest import QUESTION_TEXT, make_survey
from tests.support.answers import Answers
from tests.support.local_grid import LocalGrid
from tests.support.weights import saved_weights

Config = dict[str, Scalar]
GROUPS = ["Alder", "Birch", "Cedar", "Dogwood", "Élan 中/.."]  # partitions 0 to 4


def run(config: Config, **grid: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a federation of five nodes; returns run.json and the lines of rounds.jsonl."""
    run_federation(
        LocalGrid(client_app.app, config, **{"nodes": 5, **grid}),
        Settings.from_config(config),
        config,
    )
    return read(config)


def read(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out = Path(str(config["out"]))
    lines = (out / "rounds.jsonl").read_text().splitlines()
    return json.loads((out / "run.json").read_text()), [json.loads(line) for line in lines]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return saved_weights(path)


def test_a_run_leaves_its_whole_record(config: Config) -> None:
    record, rounds = run(config)
    assert record["status"] == "completed"
    assert record["error"] is None
    assert record["settings"] == config
    assert [entry["group"] for entry in record["roster"]] == GROUPS
    assert record["survey"]["name"] == "tiny"
    assert {"flwr", "torch", "python"} <= set(record["versions"])
    assert [entry["round"] for entry in rounds] == [0, 1, 2]
    assert rounds[0]["train"] is None
    last = rounds[-1]
    assert set(last["train"]["groups"]) == {"Alder", "Birch", "Cedar"}
    assert last["train"]["groups"]["Alder"]["questions"] == 27  # 30 less 3 held out
    assert last["evaluation"]["groups"]["Alder"]["questions"] == 3
    assert last["evaluation"]["roles"]["evaluation"]["groups"] == 2
    assert last["failures"] == []
    out = Path(str(config["out"]))
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"round-0001", "round-0002"}
    final, checkpoint = weights(out / "model"), weights(out / "checkpoints" / "round-0002")
    assert all(torch.equal(final[name], checkpoint[name]) for name in final)
    best = max(rounds, key=lambda entry: entry["evaluation"]["roles"]["train"]["mean"])
    assert record["best_round"] == best["round"]


def test_summary_is_that_of_the_groups(config: Config) -> None:
    _, rounds = run(config)
    evaluation = rounds[-1]["evaluation"]
    for role in ("train", "evaluation"):
        means = [g["alignment"] for g in evaluation["groups"].values() if g["role"] == role]
        assert evaluation["roles"][role]["mean"] == pytest.approx(np.mean(means))
        assert evaluation["roles"][role]["worst"] == pytest.approx(min(means))


def plain_loop(config: Config) -> dict[str, torch.Tensor]:
    """Federated averaging without Flower, as the paper's algorithm reads."""
    settings = Settings.from_config(config)
    survey = PreparedSurvey.open(settings.survey)
    groups = [group for group in survey.groups if group.role == "train"]
    current = initial_model(survey.dim, settings)
    for number in range(1, settings.federation.rounds + 1):
        total = {
            name: torch.zeros_like(value, dtype=torch.float64)
            for name, value in current.state_dict().items()
        }
        uniform = settings.federation.weighting == "uniform"
        splits = {
            group.name: split_questions(survey.preferences(group.name), "train", settings.split)
            for group in groups
        }
        trained = {name: 1 if uniform else len(split.train) for name, split in splits.items()}
        for group in groups:
            model = GPO(survey.dim, **asdict(settings.model))
            model.load_state_dict(current.state_dict())
            train_group(
                model,
                survey.preferences(group.name),
                settings.training,
                seed=settings.federation.seed,
                split=settings.split,
                round_number=number,
                rounds=settings.federation.rounds,
            )
            for name, value in model.state_dict().items():
                total[name] += trained[group.name] * value.double()
        # Dividing last, as the app does: a mean halfway between two floats rounds one way then.
        count = sum(trained.values())
        current.load_state_dict({name: (value / count).float() for name, value in total.items()})
    return current.state_dict()


@pytest.mark.parametrize("weighting", ["questions", "uniform"])
def test_flower_adds_nothing_to_a_plain_loop(config: Config, weighting: str) -> None:
    torch.set_num_threads(1)
    config |= {"weighting": weighting}
    run(config)
    final = weights(Path(str(config["out"])) / "model")
    for name, value in plain_loop(config).items():
        assert torch.equal(final[name], value), name


@pytest.mark.parametrize("overrides", [{}, {"client-optimizer-state": "keep"}])
def test_same_seed_same_bits(config: Config, tmp_path: Path, overrides: Config) -> None:
    finals = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(config | overrides | {"out": str(tmp_path / name), "seed": seed})
        finals.append(weights(tmp_path / name / "model"))
    a, b, c = finals
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_kept_moments_change_the_run(config: Config, tmp_path: Path) -> None:
    run(config | {"out": str(tmp_path / "reset")})
    run(config | {"out": str(tmp_path / "keep"), "client-optimizer-state": "keep"})
    reset, keep = weights(tmp_path / "reset" / "model"), weights(tmp_path / "keep" / "model")
    assert any(not torch.equal(reset[name], keep[name]) for name in reset)


def test_each_group_goes_on_from_its_own_moments(config: Config) -> None:
    config |= {"client-optimizer-state": "keep", "train-groups-per-round": 2, "rounds": 6}
    grid = LocalGrid(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    last: dict[int, int] = {}
    for message in grid.sent:
        if message.metadata.message_type == "train":
            request = record_to_request(message.content.config_records[CONFIG])
            node = message.metadata.dst_node_id
            assert request.counted == last.get(node, 0)
            last[node] = request.round
    assert len(set(last.values())) > 1  # or one request would do for all


def test_weighting_matters_where_groups_differ_in_size(config: Config, tmp_path: Path) -> None:
    run(config | {"out": str(tmp_path / "a")})
    run(config | {"out": str(tmp_path / "b"), "weighting": "uniform"})
    first, second = weights(tmp_path / "a" / "model"), weights(tmp_path / "b" / "model")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_groups_are_sampled_by_name_and_seed(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings({"train-groups-per-round": 2})
    names = ["Cedar", "Alder", "Birch"]
    rounds = [chosen_groups(names, settings, number) for number in range(30)]
    assert rounds == [chosen_groups(sorted(names), settings, number) for number in range(30)]
    assert {tuple(chosen) for chosen in rounds} == {
        ("Alder", "Birch"),
        ("Alder", "Cedar"),
        ("Birch", "Cedar"),
    }
    assert chosen_groups(names, make_settings(), 1) == sorted(names)


def test_only_sampled_groups_train(config: Config) -> None:
    _, rounds = run(config | {"train-groups-per-round": 2, "rounds": 3})
    assert all(len(entry["train"]["groups"]) == 2 for entry in rounds[1:])


def test_evaluation_only_in_its_rounds(config: Config) -> None:
    _, rounds = run(config | {"rounds": 5, "evaluate-every": 2})
    assert [entry["round"] for entry in rounds if entry["evaluation"]] == [0, 2, 4, 5]


class Overheard(LocalGrid):
    """Keeps the replies as well, those that tell of an error too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replies: list[Message] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        self.replies += replies
        return replies


def test_nothing_of_a_partition_is_in_a_message(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(model: GPO, preferences: PreferenceSet, *args: Any, **kwargs: Any) -> Any:
        if preferences.group == "Birch" and kwargs["round_number"] == 2:
            raise ValueError(f"{QUESTION_TEXT}: {preferences.shares.tolist()}")
        return train_group(model, preferences, *args, **kwargs)

    monkeypatch.setattr(gpo_learner, "train_group", fail_once)
    grid = Overheard(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    answers = Answers(PreparedSurvey.open(str(config["survey"])))
    kinds = {message.metadata.message_type for message in grid.replies}
    assert kinds == {"query", "train", "evaluate"}
    (failed,) = [message for message in grid.replies if message.has_error()]
    assert "ValueError in test_rounds.py" in failed.error.reason
    assert answers.found_in(failed.error.reason.encode()) == []
    grid.replies.remove(failed)
    for message in [*grid.sent, *grid.replies]:
        for record in message.content.values():
            for key, value in record.items():
                if isinstance(value, Array):
                    assert answers.found_in(value.data, weights=True) == []
                else:
                    assert answers.found_in(repr((key, value)).encode()) == []


def test_the_search_finds_answers(tiny_survey: PreparedSurvey) -> None:
    answers = Answers(tiny_survey)
    shares = tiny_survey.preferences("Birch").shares
    row = tiny_survey.embeddings[7]
    for content in (
        f"{QUESTION_TEXT} 3?".encode(),
        f"[{shares[3]}]".encode(),
        f"{shares[4]:.4f} and {shares[5]:.4f}".encode(),
        f"{shares[4]:.10f}"[:9].encode(),
        b"..." + shares[2].tobytes(),
        b"..." + shares[2].astype(np.float64).tobytes(),
        row.tobytes() + b"...",
        row.astype(np.float32).tobytes(),
    ):
        assert answers.found_in(content) != [], content
    first = shares[: tiny_survey.preferences("Birch").options[0]]
    assert answers.found_in(first.tobytes(), weights=True) != []
    assert answers.found_in(b"0.1234 of 0.5 in 1.25 s, 0.7178, 12.3456789, seed 0") == []


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
    assert reasons.pop().startswith("KeyError in test_rounds.py, line")
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
        ("", "error 3"),
    ],
)
def test_reasons_are_told_without_tracebacks(config: Config, text: str, reason: str) -> None:
    LocalGrid(client_app.app, config, nodes=1)
    request = Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
    assert error_reason(Message(Error(code=3, reason=text), reply_to=request)) == reason


def in_round(number: int, partition: int, phase: str = MessageType.TRAIN) -> Callable[..., bool]:
    counts = {"train": 0, "evaluate": 0}

    def matches(who: int, reply: Message) -> bool:
        kind = reply.metadata.message_type
        if who != partition or kind != phase:
            return False
        counts[kind] += 1
        return counts[kind] == number

    return matches


def broken(change: Callable[[RecordDict], None], when: Callable[..., bool]) -> Callable[..., Any]:
    def reply(partition: int, message: Message) -> Message:
        if when(partition, message):
            change(message.content)
        return message

    return reply


def test_a_group_that_raises_is_recorded_and_the_run_goes_on(config: Config) -> None:
    hit = in_round(3, 1)

    def reply(partition: int, message: Message) -> Message:
        if hit(partition, message):
            raise RuntimeError("out of memory")
        return message

    record, rounds = run(config | {"rounds": 4}, reply=reply)
    assert record["status"] == "completed"
    assert rounds[3]["failures"] == [
        {"group": "Birch", "phase": "train", "reason": "out of memory"}
    ]
    assert set(rounds[3]["train"]["groups"]) == {"Alder", "Cedar"}
    assert set(rounds[4]["train"]["groups"]) == {"Alder", "Birch", "Cedar"}


def test_below_the_quorum_the_run_fails_and_says_so(config: Config) -> None:
    hit = in_round(2, 1)

    def reply(partition: int, message: Message) -> Message:
        if hit(partition, message):
            raise RuntimeError("out of memory")
        return message

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
    final = weights(Path(str(config["out"])) / "model")
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
    hit = in_round(2, 0)  # which scores the weights of round 1 before it trains

    def reply(partition: int, message: Message) -> Message:
        if hit(partition, message):
            raise RuntimeError("gone")
        return message

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


def test_a_round_is_one_exchange(config: Config) -> None:
    config |= {"rounds": 4, "evaluate-every": 2}
    grid = LocalGrid(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    kinds = [message.metadata.message_type for message in grid.sent]
    train, evaluate = ["train"] * 3, ["evaluate"]
    # Rounds 0 and 2 are scored by the messages that train rounds 1 and 3, the last one alone.
    rounds = [*train, *evaluate * 2, *train, *train, *evaluate * 2, *train, *evaluate * 5]
    assert kinds == [*["query"] * 5, *rounds]


def test_weights_that_diverge_end_the_run(config: Config) -> None:
    with pytest.raises(FederationError, match=r"the weights fedavgm gave are not usable"):
        run(config | {"strategy": "fedavgm", "fedavgm.learning-rate": 1e300})


def test_too_few_nodes_in_time(config: Config) -> None:
    with pytest.raises(FederationError, match=r"5 of 6 nodes connected within start-timeout"):
        run(config | {"expected-nodes": 6})
    assert read_status(config) == "failed"


def read_status(config: Config) -> str:
    status = json.loads((Path(str(config["out"])) / "run.json").read_text())["status"]
    return str(status)


def test_fewer_supernodes_than_groups(config: Config) -> None:
    with pytest.raises(
        FederationError, match=r"survey has 5 groups but the federation has 2 SuperNodes: pass"
    ):
        run(config, nodes=2)


def test_a_group_too_small_for_the_settings(config: Config) -> None:
    with pytest.raises(FederationError, match=r"group 'Cedar' has 18 train questions of 20.*lower"):
        run(config | {"evaluation-context": 19})


def test_a_damaged_partition_is_found_before_training(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "damaged")
    file = survey.path / survey.group("Birch").file
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FederationError, match=r"[Bb]irch"):
        run(config | {"survey": str(survey.path)})


def describe_with(**changes: Any) -> Callable[[int, Message], Message]:
    """Node 1 describes itself with other values."""

    def reply(partition: int, message: Message) -> Message:
        if partition == 1 and message.metadata.message_type == "query":
            for key, value in changes.items():
                message.content.config_records["description"][key] = value
        return message

    return reply


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "other"}, "group 'Birch' has fingerprint 'other'"),
        ({"survey_questions": 2**40}, "group 'Birch' has survey_questions 1099511627776"),
        ({"dim": 7}, "group 'Birch' has dim 7"),
        ({"metric": "wasserstein"}, "group 'Birch' has metric 'wasserstein'"),
        ({"version": "9.9"}, "group 'Birch' has version '9.9', the server '"),
        ({"role": "judge"}, "group 'Birch' has unknown role 'judge'"),
        ({"pool": 10**9}, "group 'Birch' claims 30 questions, 1000000000 of them to train on"),
        ({"questions": 31}, "group 'Birch' claims 31 questions"),
        ({"group": "Alder"}, "2 nodes hold group 'Alder'"),
        ({"questions": "many"}, "no valid 'questions'"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_by_name(
    config: Config, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FederationError) as caught:
        run(config, reply=describe_with(**changes))
    assert message in str(caught.value)


def run_at_sites(
    config: Config,
    survey: PreparedSurvey,
    sites: Path,
    damage: Callable[[Path], object] = lambda site: None,
) -> None:
    """Run on a site for each group; the first one is damaged before."""
    bare = config | {"survey": ""}
    grid = LocalGrid(client_app.app, bare, nodes=5)
    for number, (context, group) in enumerate(zip(grid.contexts.values(), GROUPS, strict=True)):
        site = write_site(survey, group, sites / f"site-{number}")
        context.node_config = {"site": str(site.survey.path)}
    damage(sites / "site-0")
    run_federation(grid, Settings.from_config(bare), bare)


def test_a_site_is_named_by_the_nodes_own_config(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    run_at_sites(config, tiny_survey, tmp_path)
    record, _ = read(config)
    assert record["status"] == "completed"
    run(config | {"out": f"{config['out']}-simulated"})
    simulated = weights(Path(f"{config['out']}-simulated") / "model")
    final = weights(Path(str(config["out"])) / "model")
    assert all(torch.equal(final[name], simulated[name]) for name in final)


def test_a_site_that_was_tampered_with_is_refused(
    config: Config, tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    def swap_answers(site: Path) -> None:
        shutil.copy(tmp_path / "site-1/groups/birch.parquet", site / "groups/alder.parquet")

    with pytest.raises(FederationError) as caught:
        run_at_sites(config, tiny_survey, tmp_path, swap_answers)
    message = str(caught.value)
    assert "node 100 cannot take part: groups/alder.parquet is not as it was written" in message
    assert str(tmp_path) not in message
    record = json.loads((Path(str(config["out"])) / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", message)


def test_q_fedavg_without_its_power_is_an_unweighted_average(config: Config) -> None:
    finals = []
    for strategy, changes in (
        ("qfedavg", {"qfedavg.q": 0.0}),
        ("fedavg", {"weighting": "uniform"}),
    ):
        out = f"{config['out']}-{strategy}"
        run(config | changes | {"out": out, "strategy": strategy, "rounds": 1})
        finals.append(weights(Path(out) / "model"))
    for name, value in finals[0].items():
        torch.testing.assert_close(value, finals[1][name], rtol=0, atol=1e-5)


def test_embeddings_that_were_changed_are_refused(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "changed")
    file = survey.path / "embeddings.safetensors"
    content = bytearray(file.read_bytes())
    content[-2:] = np.float16("nan").tobytes()
    file.write_bytes(content)
    with pytest.raises(FederationError, match=r"not as it was prepared"):
        run(config | {"survey": str(survey.path)})


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


def test_an_old_run_is_not_overwritten(config: Config) -> None:
    run(config)
    with pytest.raises(FederationError, match="already holds a run"):
        run(config)


def test_an_unwritable_run_directory(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FederationError, match="cannot write the run directory"):
        run(config | {"out": str(tmp_path / "file" / "run")})
