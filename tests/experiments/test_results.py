"""Intervals and costs, by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.errors import UserError
from pluralllm_app.experiments.results import DEFINITIONS, Comparison, Cost, Interval, Run
from pluralllm_app.records.schema import RoundEntry
from tests.support.runs import make_entry, write_run


def read(path: Path, rounds: list[RoundEntry], **fields: Any) -> Run:
    return Run.read(write_run(path, rounds, **fields))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    interval = Interval.of(values)
    assert interval.low is not None
    assert interval.high is not None
    assert min(values) - 1e-9 <= interval.low <= interval.mean + 1e-9
    assert interval.mean - 1e-9 <= interval.high <= max(values) + 1e-9
    assert interval == Interval.of(values)


def test_an_interval_of_two_is_from_one_to_the_other() -> None:
    # A quarter of the resamples are (a, a), a quarter (b, b).
    assert Interval.of([0.2, 0.6]) == Interval(0.4, 0.2, 0.6, (0.2, 0.6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "said", "share"), [(2, "with 2 in about half", 0.5), (5, "about 85 %", 0.85)]
)
def test_intervals_cover_the_mean_as_often_as_every_table_says(
    seeds: int, said: str, share: float
) -> None:
    assert said in DEFINITIONS["interval"]
    draws = np.random.default_rng(0).normal(size=(1000, seeds))
    intervals = [Interval.of(own.tolist()) for own in draws]
    covered = [own.low <= 0 <= own.high for own in intervals if own.low and own.high]
    assert len(covered) == 1000
    assert abs(np.mean(covered) - share) < 0.04


def test_one_seed_has_no_interval() -> None:
    assert Interval.of([0.5]) == Interval(0.5, None, None, (0.5,))


def test_costs_of_gain_and_loss(tmp_path: Path) -> None:
    losses = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    scores = [None, 0.79, None, 0.895, None, 0.9]
    rounds = [make_entry(0, 0.7)] + [
        make_entry(number, score, loss)
        for number, (score, loss) in enumerate(zip(scores, losses, strict=True), start=1)
    ]
    run = read(tmp_path / "run", rounds)
    # 0.7 -> 0.9: 90 % of the gain is 0.88, reached in round 4; 40 % is 0.78, in round 2.
    assert run.cost_of_gain(0.9) == Cost(4, 24, 192, 8.0)
    assert run.cost_of_gain(0.4) == Cost(2, 12, 96, 4.0)
    assert [loss for loss, _ in run.losses()] == [5, 4.5, 4, 3.5, 3, 2]
    assert run.final_loss == 2  # of rounds 2 to 6
    assert run.cost_of_loss(4.5) == Cost(5, 30, 240, 10.0)  # fewer than 5 rounds do not count
    assert run.cost_of_loss(2.5) == Cost(6, 36, 288, 12.0)
    assert run.cost_of_loss(1.9) is None


def test_no_gain_has_no_cost(tmp_path: Path) -> None:
    run = read(tmp_path / "run", [make_entry(0, 0.7), make_entry(1, 0.6, 1.0)])
    assert run.cost_of_gain(0.9) is None
    assert read(tmp_path / "other", [make_entry(0, 0.7)]).cost_of_gain(0.9) is None


def test_a_run_in_the_middle_of_a_line(tmp_path: Path) -> None:
    read(tmp_path / "run", [make_entry(0, 0.7)], status="running")
    with (tmp_path / "run" / "rounds.jsonl").open("a") as file:
        file.write('{"round": 1, "tr')
    run = Run.read(tmp_path / "run")
    assert not run.finished
    assert len(run.rounds) == 1


def test_a_finished_run_whose_last_line_is_cut_off(tmp_path: Path) -> None:
    read(tmp_path / "run", [make_entry(0, 0.7), make_entry(1, 0.8, 1.0)])
    file = tmp_path / "run" / "rounds.jsonl"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(UserError, match="its last line is cut off"):
        Run.read(tmp_path / "run")


def test_the_result_of_converged_is_its_best(tmp_path: Path) -> None:
    rounds = [make_entry(0, 0.7), make_entry(1, 0.9, 1.0), make_entry(2, 0.8, 0.5)]
    run = read(tmp_path / "a", rounds, method="centralized-converged", best_round=1)
    assert run.score("evaluation", "mean") == 0.9
    assert run.cost_of_gain(0.95) == Cost(1, 6, 48, 2.0)  # what comes after it costs nothing
    assert read(tmp_path / "b", rounds).score("evaluation", "mean") == 0.8
    assert run.score("train", "mean") is None


def test_nothing_evaluated(tmp_path: Path) -> None:
    run = read(tmp_path / "run", [make_entry(1, None, 1.0)])
    assert run.result is None
    assert run.score("evaluation", "mean") is None


@pytest.mark.parametrize("text", ['{"train": null}\n', "[1]\n", "nonsense\n"])
def test_damaged_rounds(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "run", [])
    (tmp_path / "run" / "rounds.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"rounds\.jsonl is damaged"):
        Run.read(tmp_path / "run")


def test_what_is_no_run_and_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        Run.read(tmp_path)
    with pytest.raises(UserError, match="no comparison"):
        Comparison.read(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Comparison.read(tmp_path)
