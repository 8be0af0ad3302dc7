from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.records.schema import RoundEntry
from pluralllm_app.report.series import (
    difference_rows,
    fairness_rows,
    group_rows,
    loss_rows,
    number,
    score_rows,
)
from pluralllm_app.report.sources import read_sources
from tests.support.runs import make_entry, write_run


def entry(number: int, loss: float | None, mean: float | None) -> RoundEntry:
    return make_entry(number, mean, loss)


FIRST = [entry(0, None, 0.5), entry(1, 0.4, None), entry(2, 0.2, 0.7)]
SECOND = [*FIRST[:2], entry(2, 0.4, 0.9), entry(3, 0.1, None)]


@pytest.fixture
def methods(tmp_path: Path) -> Any:
    paths = [
        write_run(tmp_path / "a", rounds=FIRST),
        write_run(tmp_path / "b", rounds=SECOND, seed=1),
        write_run(tmp_path / "c", rounds=FIRST[:1], method="uniform"),
    ]
    return read_sources(paths).methods


def test_loss_is_averaged_over_rounds_then_seeds_as_far_as_all_of_them_go(methods: Any) -> None:
    rows = loss_rows(methods)
    # After round 2: (0.4 + 0.2) / 2 and (0.4 + 0.4) / 2.
    assert [(row["method"], row["rounds"], row["loss"]) for row in rows] == [
        ("Federated GPO", 1, 0.4),
        ("Federated GPO", 2, 0.35),
    ]
    assert (rows[1]["low"], rows[1]["high"], rows[1]["seeds"]) == (0.3, 0.4, 2)
    assert (rows[1]["steps"], rows[1]["tasks"], rows[1]["seconds"]) == (12, 96, 4.0)


def test_scores_are_per_evaluation_and_a_method_without_training_is_a_rule(methods: Any) -> None:
    rows = score_rows(methods, "evaluation")
    assert [(row["method"], row["rounds"], row["alignment"], row["rule"]) for row in rows] == [
        ("Uniform", 0, 0.5, True),
        ("Federated GPO", 0, 0.5, False),
        ("Federated GPO", 2, 0.8, False),
    ]
    assert score_rows(methods, "train") == []


def test_groups_have_the_last_evaluation_and_one_alone_no_fairness(methods: Any) -> None:
    (federated, uniform) = group_rows(methods, "evaluation")
    assert (federated["group"], federated["alignment"], federated["low"]) == ("Dogwood", 0.8, 0.7)
    assert (uniform["alignment"], uniform["low"]) == (0.5, None)
    assert fairness_rows(methods, "evaluation") == []


def test_several_groups_have_the_fairness_of_their_means(tmp_path: Path) -> None:
    methods = read_sources([write_run(tmp_path / "a")]).methods  # three train groups, all alike
    (row,) = fairness_rows(methods, "train")
    assert (row["method"], row["form"], row["fi"]) == ("Federated GPO", "over groups", 1.0)


def test_differences_are_of_runs_of_one_seed(methods: Any) -> None:
    # Of seed 0 alone: 0.5 - 0.7.
    (uniform,) = difference_rows(methods, "evaluation")
    assert (uniform["method"], uniform["difference"]) == ("Uniform", -0.2)
    assert (uniform["low"], uniform["seeds"]) == (None, 1)
    assert difference_rows(methods, "train") == []


def test_differences_are_of_one_context_and_of_what_is_finished(tmp_path: Path) -> None:
    def run(name: str, seed: int, score: float, contexts: int, **fields: Any) -> Path:
        rounds = [entry(0, None, score)]
        settings = {"evaluation-seed": contexts, "strategy": "fedavg"}
        path = tmp_path / f"{name}-{seed}"
        return write_run(path, rounds=rounds, seed=seed, settings=settings, **fields)

    paths = [run("federated", seed, 0.5, seed) for seed in range(3)]
    paths += [run("ridge", seed, 0.6 + seed / 10, seed, method="ridge") for seed in range(2)]
    paths.append(run("ridge", 2, 0.9, 7, method="ridge"))  # other contexts
    paths.append(run("uniform", 0, 0.4, 0, method="uniform", status="failed"))
    (ridge,) = difference_rows(read_sources(paths).methods, "evaluation")
    assert (ridge["difference"], ridge["low"], ridge["high"]) == (0.15, 0.1, 0.2)
    assert difference_rows(read_sources(paths[3:5]).methods, "evaluation") == []


def test_what_cannot_be_drawn_is_none() -> None:
    assert number(float("nan")) is None
    assert number(float("inf")) is None
    assert number(0.123456) == 0.1235
