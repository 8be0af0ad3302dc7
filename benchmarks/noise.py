"""What noise for respondents leaves of the alignment, against epsilon.

    python benchmarks/noise.py --survey data/globalopinionqa --respondents 1000 --lines noise.jsonl
    python benchmarks/noise.py --survey data/demo --lines demo.jsonl --seeds 1

Factors by conf/factors.toml over all train groups, both halves in this process without messages.
The survey must say how much one respondent can change; where it does not, --respondents assumes
that so many people of the same weight have answered each question, and --answered that none of them
answered more questions than that. A cell is one training; its line is added to the file once it has
ended, and it is not run again. Seeds are those of runs: noise has none, so that another time gives
other scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from in_process import Line, keep, lines_of, scored, settings_of, trained
from measuring import parse, publish

from pluralllm_app.experiments.results import Interval
from pluralllm_app.experiments.tables import format_interval
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.respondents import Mechanism
from pluralllm_app.survey.content import Influence
from pluralllm_app.survey.prepared import PreparedSurvey

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, None)  # None: no noise


@dataclass(frozen=True)
class Bench:
    """What all cells share."""

    survey: PreparedSurvey
    respondents: int | None
    answered: int | None
    rounds: int

    @property
    def conditions(self) -> Line:
        """What cells of one table have in common."""
        return {
            "survey": self.survey.fingerprint,
            "respondents": self.respondents,
            "answered": self.answered,
            "most rounds": self.rounds,
        }

    def answers(self, role: str) -> Iterator[PreferenceSet]:
        """Those of all groups of a role."""
        for group in self.survey.groups:
            if group.role == role:
                yield self.survey.preferences(group.name)

    def mechanism(self, own: PreferenceSet, epsilon: float, delta: float) -> Mechanism:
        """What draws the noise of a group."""
        influence = self.survey.influence(own.group)
        if self.respondents:
            same = np.full(len(own), 1 / self.respondents)
            influence = Influence(same, min(self.answered or len(own), len(own)))
        assert influence, "the survey does not say how much a respondent can change"
        return Mechanism.of(influence, own.options, epsilon, delta)

    def trained_on(self, epsilon: float | None, delta: float) -> Iterator[PreferenceSet]:
        """The train groups' answers, with noise."""
        for own in self.answers("train"):
            if epsilon is None:
                yield own
            else:
                mechanism = self.mechanism(own, epsilon, delta)
                yield mechanism.readable(own, mechanism.draw(own))

    def cell(self, epsilon: float | None, seed: int) -> Line:
        """Train once; mean alignment and coverage of the groups that never train, and rounds."""
        settings = settings_of(seed=seed, rounds=self.rounds)
        groups = list(self.trained_on(epsilon, settings.federation.delta))
        learner = FactorsLearner(settings, self.survey.all_questions, len(groups))
        predictor, rounds = trained(learner, groups, self.rounds)
        found = scored(predictor, self.answers("evaluation"), settings, self.survey.metric)
        return found | {"rounds": rounds}

    def deviations(self, epsilon: float) -> list[float]:
        """Standard deviations of the noise on shares: the smallest, the mean and the largest."""
        delta = settings_of().federation.delta
        noise = [self.mechanism(own, epsilon, delta).deviations for own in self.answers("train")]
        found = np.concatenate(noise)
        return [float(found.min()), float(found.mean()), float(found.max())]


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True, help="prepared"),
            parser.add_argument("--respondents", type=int, help="of each question, assumed"),
            parser.add_argument("--answered", type=int, help="questions, by one of them at most"),
            parser.add_argument("--lines", type=Path, required=True, help="file of the results"),
            parser.add_argument("--seeds", type=int, default=5),
            parser.add_argument("--rounds", type=int, default=30),
        ),
    )
    survey = PreparedSurvey.open(arguments.survey)
    bench = Bench(survey, arguments.respondents, arguments.answered, arguments.rounds)
    for seed in range(arguments.seeds):
        for epsilon in EPSILONS:
            cell = {**bench.conditions, "epsilon": epsilon, "seed": seed}
            keep(arguments.lines, cell, partial(bench.cell, epsilon, seed))
    publish("noise", table(bench, lines_of(arguments.lines)), arguments.json)


def table(bench: Bench, lines: list[Line]) -> dict[str, Any]:
    """By epsilon: noise on a share, alignment with its interval over seeds, coverage, rounds."""
    found: dict[str, Any] = {}
    for epsilon in EPSILONS:
        cell = {**bench.conditions, "epsilon": epsilon}
        own = [line for line in lines if cell.items() <= line.items()]
        name = f"epsilon {epsilon:g}" if epsilon else "no noise"
        if epsilon:
            low, mid, high = bench.deviations(epsilon)
            found[f"{name}: noise on a share"] = f"{mid:.3f} ({low:.3f} to {high:.3f})"
        alignment = Interval.of([line["alignment"] for line in own])
        found[f"{name}: alignment"] = alignment.mean
        found[f"{name}: interval over {len(own)} seeds"] = format_interval(alignment)
        held = np.mean([line["coverage"] for line in own], axis=0)
        found[f"{name}: in intervals of 80 %, 95 %"] = f"{held[0]:.1%}, {held[1]:.1%}"
        found[f"{name}: rounds"] = mean(line["rounds"] for line in own)
    return found


if __name__ == "__main__":
    main()
