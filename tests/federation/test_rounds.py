"""Whole federations in this process: the record, the determinism, and what messages hold."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Message

from pluralllm_app import client_app
from pluralllm_app.federation.messages import (
    CONFIG,
    record_to_request,
)
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning import gpo as gpo_learner
from pluralllm_app.learning.local_steps import initial_model, train_group
from pluralllm_app.learning.sampling import chosen_groups
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import QUESTION_TEXT
from tests.support.answers import Answers
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import GROUPS, Config, Finished, read, run
from tests.support.weights import saved_weights


def test_a_run_leaves_its_whole_record(finished: Finished) -> None:
    config = finished({})
    record, rounds = read(config)
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
    final, checkpoint = (
        saved_weights(out / "model"),
        saved_weights(out / "checkpoints" / "round-0002"),
    )
    assert all(torch.equal(final[name], checkpoint[name]) for name in final)
    best = max(rounds, key=lambda entry: entry["evaluation"]["roles"]["train"]["mean"])
    assert record["best_round"] == best["round"]


def test_summary_is_that_of_the_groups(finished: Finished) -> None:
    _, rounds = read(finished({}))
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


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["questions", "uniform"])
def test_flower_adds_nothing_to_a_plain_loop(finished: Finished, weighting: str) -> None:
    torch.set_num_threads(1)
    config = finished({"weighting": weighting})
    final = weights_of(config)
    for name, value in plain_loop(config).items():
        assert torch.equal(final[name], value), name


KEEP: Config = {"client-optimizer-state": "keep"}


def weights_of(config: Config) -> dict[str, torch.Tensor]:
    return saved_weights(Path(str(config["out"])) / "model")


@pytest.mark.parametrize("changes", [{}, KEEP])
def test_same_seed_same_bits(config: Config, finished: Finished, changes: Config) -> None:
    run(config | changes)
    a, b, c = map(weights_of, (config, finished(changes), finished(changes | {"seed": 1})))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_kept_moments_change_the_run(finished: Finished) -> None:
    reset, keep = weights_of(finished({})), weights_of(finished(KEEP))
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


def test_weighting_matters_where_groups_differ_in_size(finished: Finished) -> None:
    first, second = weights_of(finished({})), weights_of(finished({"weighting": "uniform"}))
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


@pytest.mark.slow
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


def test_a_round_is_one_exchange(config: Config) -> None:
    config |= {"rounds": 4, "evaluate-every": 2}
    grid = LocalGrid(client_app.app, config, nodes=5)
    run_federation(grid, Settings.from_config(config), config)
    kinds = [message.metadata.message_type for message in grid.sent]
    train, evaluate = ["train"] * 3, ["evaluate"]
    # Rounds 0 and 2 are scored by the messages that train rounds 1 and 3, the last one alone.
    rounds = [*train, *evaluate * 2, *train, *train, *evaluate * 2, *train, *evaluate * 5]
    assert kinds == [*["query"] * 5, *rounds]


@pytest.mark.slow
def test_q_fedavg_without_its_power_is_an_unweighted_average(
    config: Config, finished: Finished
) -> None:
    config |= {"strategy": "qfedavg", "qfedavg.q": 0.0, "rounds": 1}
    run(config)
    average = saved_weights(
        Path(str(finished({"weighting": "uniform", "rounds": 1})["out"]), "model")
    )
    for name, value in weights_of(config).items():
        torch.testing.assert_close(value, average[name], rtol=0, atol=1e-5)
