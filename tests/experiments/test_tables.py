"""The tables of `pluralllm compare`, of runs written by hand."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pluralllm_app.cli.comparison_tables import print_comparison
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.experiments.results import Comparison, MethodResult, Run
from pluralllm_app.experiments.tables import cost_rows
from tests.support.runs import make_comparison, make_entry, write_run

TRAINED = [make_entry(number, None, -number) for number in range(1, 6)]


def result(path: Path, name: str) -> MethodResult:
    """Two runs of 6 rounds; minus federated, they score -0.012 and +0.034."""
    scores = (0.8, 0.8) if name == "federated" else (0.788, 0.834)
    runs = [
        Run.read(
            write_run(
                path / name / str(seed),
                [make_entry(0, 0.5), *TRAINED, make_entry(6, score, -6)],
                method=name,
                seed=seed,
            )
        )
        for seed, score in enumerate(scores)
    ]
    method = METHODS[name]
    return MethodResult(name, method.title, method.pools_answers, None, len(runs), runs)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_a_terminal(tmp_path: Path, width: int) -> None:
    info = make_comparison([0, 1], reserved=0.1)
    names = [name for name in METHODS if name != "centralized-converged"]
    methods = [result(tmp_path, name) for name in names]
    text = StringIO()
    print_comparison(Comparison(tmp_path, info, methods), Console(width=width, file=text))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    # A line for each kind of cost, a number for each column.
    for kind, cost in (("rounds", "6"), ("steps", "36"), ("tasks", "288"), ("seconds", "12")):
        rows = [line for line in lines if line.split()[-5:] == [kind, cost, cost, cost, cost]]
        assert len(rows) == len(names)
    assert "Loss: " in text.getvalue()
    assert "Converged: " not in text.getvalue()  # no run of it
    # In one piece, of all but the federated.
    assert sum("[-0.012, +0.034]" in line for line in lines) == len(names) - 1


def test_what_is_trained_without_rounds_has_its_whole_cost(tmp_path: Path) -> None:
    run = Run.read(write_run(tmp_path / "run", [make_entry(6, 0.8, -6)], method="local-only"))
    method = MethodResult("local-only", "Alone", False, None, 1, [run])
    rows = cost_rows(method, [method])
    assert rows is not None
    assert rows["tasks"] == ["-", "-", "-", "48"]
    uniform = Run.read(write_run(tmp_path / "uniform", [make_entry(0, 0.7)], method="uniform"))
    method = MethodResult("uniform", "Uniform", False, None, 1, [uniform])
    assert cost_rows(method, [method]) is None


def test_where_nothing_is_trained_there_is_no_table_of_costs(tmp_path: Path) -> None:
    uniform = Run.read(write_run(tmp_path / "uniform", [make_entry(0, 0.7)], method="uniform"))
    methods = [MethodResult("uniform", "Uniform", False, None, 1, [uniform])]
    text = StringIO()
    print_comparison(Comparison(tmp_path, make_comparison([0]), methods), Console(file=text))
    assert "0.7000" in text.getvalue()
    assert "What it took" not in text.getvalue()
    assert "Seconds: " not in text.getvalue()


def test_missing_evaluation_groups_are_said(tmp_path: Path) -> None:
    run = Run.read(write_run(tmp_path / "run", [make_entry(6, None, -6, train_score=0.8)]))
    methods = [MethodResult("federated", "Federated", False, None, 1, [run])]
    text = StringIO()
    print_comparison(Comparison(tmp_path, make_comparison([0]), methods), Console(file=text))
    assert "No evaluation groups" in text.getvalue()
    assert "fairness index FI" not in text.getvalue()
    for absent in ("Loss: ", "Converged: ", "one group alone", "Intervals: "):
        assert absent not in text.getvalue()
