"""Factors trained in this process, by both halves of the learner and without messages.

Results of benchmarks that take hours are lines of a file: what has ended is not run again.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measuring import ROOT

from pluralllm_app.learning.base import Request
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.evaluation import evaluate
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import flatten, read_defaults, read_toml

EXPERIMENT = "0" * 32
Line = dict[str, Any]


def settings_of(**changes: Scalar) -> Settings:
    """Those of conf/factors.toml."""
    config = read_defaults(ROOT / "pyproject.toml") | flatten(read_toml(ROOT / "conf/factors.toml"))
    return Settings.from_config(config | changes)


def trained(
    learner: FactorsLearner, groups: Sequence[PreferenceSet], rounds: int
) -> tuple[FactorsPredictor, int]:
    """What is learned from all groups in so many rounds at most, and how many it took."""
    state, number = learner.initial_state(), 0
    with TemporaryDirectory() as memory:
        while number < rounds and not learner.settled(state):
            number += 1
            asked = Request(number, False, EXPERIMENT, number - 1, learner.options())
            sent = state.sent
            given = (
                learner.contribute(sent, own, asked, Path(memory, str(place)))
                for place, own in enumerate(groups)
            )
            state = learner.combine(number, state, given)
    return learner.predictor(state.sent), number


def scored(
    predictor: ContextPredictor, groups: Iterable[PreferenceSet], settings: Settings, metric: str
) -> Line:
    """Mean alignment and coverage of groups that never train, and the worst of them."""
    found = [
        evaluate(predictor, own, "evaluation", settings.split, settings.evaluation, metric)
        for own in groups
    ]
    scores = [float(each.scores.scores.mean()) for each in found]
    return {
        "alignment": float(np.mean(scores)),
        "worst": min(scores),
        "coverage": np.mean([each.coverage for each in found], axis=0).tolist(),
    }


def lines_of(file: Path) -> list[Line]:
    """Those that are there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(file: Path, cell: Line, run: Callable[[], Line]) -> None:
    """Add the line of a cell to a file, unless it is there.

    Args:
        file: of one benchmark.
        cell: all that its result depends on, so that other settings are other cells.
        run: what comes of it.
    """
    if not any(cell.items() <= line.items() for line in lines_of(file)):
        line = json.dumps(cell | run())
        with file.open("a") as lines:
            lines.write(line + "\n")
