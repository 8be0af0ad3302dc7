"""Alignment by number of context questions, and intervals: scored once, in tables and figures."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app.cli.comparison_tables import print_comparison
from pluralllm_app.experiments.comparison import open_comparison
from pluralllm_app.experiments.few_shot import score_few_shot, unscored
from pluralllm_app.experiments.results import Comparison, MethodResult, Run
from pluralllm_app.experiments.workers import run_cell
from pluralllm_app.records.schema import RoundEntry
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.scoring.results import GroupResult
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import tiny_config
from tests.support.runs import make_comparison, make_evaluation, write_run

Config = dict[str, Scalar]
METHODS = ["federated", "uniform", "consensus", "weighted-consensus", "low-rank", "ridge"]


def printed(comparison: Comparison) -> str:
    text = StringIO()
    print_comparison(comparison, Console(width=200, file=text))
    return text.getvalue()


@pytest.fixture(scope="module")
def scored(tiny_survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Groups never trained on have 30 questions: 10 are left to predict from at most 20."""
    out = tmp_path_factory.mktemp("scored") / "one"
    for cell in open_comparison(out, tiny_config(tiny_survey, out), tiny_survey, 1, METHODS):
        run_cell(cell)
    pool = PooledSurvey.read(tiny_survey)
    runs = unscored(Comparison.read(out))
    assert len(runs) == len(METHODS)
    for run in runs:
        score_few_shot(run, pool)
    return Comparison.read(out)


def test_every_method_is_scored_once_at_each_number(scored: Comparison) -> None:
    assert unscored(scored) == []
    curves = {method.name: method.few_shot() for method in scored.methods}
    assert list(curves["federated"]) == [1, 5, 10, 20]  # a GPO needs a question
    for name in METHODS[1:]:
        assert list(curves[name]) == [0, 1, 5, 10, 20]
        assert all(0 < score.mean < 1 for score in curves[name].values())
    # The same questions at every number: what needs no context scores the same.
    for name in ("uniform", "consensus"):
        assert len({score.mean for score in curves[name].values()}) == 1
    # With no answer all train groups weigh the same, and no rule is fitted.
    assert curves["weighted-consensus"][0].mean == pytest.approx(curves["consensus"][0].mean)
    assert curves["ridge"][0].mean == pytest.approx(curves["uniform"][0].mean)


def test_the_table_says_what_is_left_out(scored: Comparison) -> None:
    text = printed(scored)
    rows = [line.split() for line in text.splitlines()]
    assert ["method", "0", "1", "5", "10", "20"] in rows
    (row,) = [row for row in rows if row[:3] == ["Federated", "GPO", "-"]][-1:]
    assert len(row) == 7
    assert "Left out: 50, 100 (Dogwood has too few questions; of it, 20 can be given)" in text
    assert "True shares within intervals" not in text  # none of these methods has any


def test_a_number_that_a_seed_lacks_is_left_out(scored: Comparison) -> None:
    (run,) = scored.methods[0].runs
    assert run.few_shot is not None
    fewer = replace(run, few_shot=replace(run.few_shot, points=run.few_shot.points[:3]))
    both = replace(scored.methods[0], runs=[run, fewer])
    assert list(both.few_shot()) == [1, 5]


def test_coverage_is_the_mean_over_groups_and_seeds(tmp_path: Path) -> None:
    def run(seed: int, *coverages: tuple[float, float]) -> Run:
        groups = {
            f"group {number}": GroupResult(
                role="evaluation", alignment=0.8, loss=None, questions=9, coverage=coverage
            )
            for number, coverage in enumerate(coverages)
        }
        trained = GroupResult(
            role="train", alignment=0.8, loss=None, questions=9, coverage=(0.1, 0.1)
        )
        evaluation = replace(make_evaluation(0.8), groups=groups | {"trained": trained})
        entry = RoundEntry(round=1, evaluation=evaluation)
        return Run.read(write_run(tmp_path / str(seed), [entry], seed=seed))

    runs = [run(0, (0.7, 0.9), (0.8, 1.0)), run(1, (0.85, 0.97), (0.85, 0.97))]
    method = MethodResult("factors", "Factors", False, None, 2, runs)
    assert method.coverage("evaluation") == pytest.approx([0.8, 0.96])
    text = printed(Comparison(tmp_path, make_comparison([0, 1]), [method]))
    row = next(line.split() for line in text.splitlines() if "80.0 %" in line)
    assert row == ["Factors", "80.0", "%", "96.0", "%"]
    assert "too sure of themselves" in text
