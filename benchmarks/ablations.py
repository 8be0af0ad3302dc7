"""What each part of the latent factors is worth: each left out, paired with the whole.

    python benchmarks/ablations.py --survey data/globalopinionqa-described --lines ablations.jsonl

Factors by conf/factors.toml, both halves in this process without messages, on the groups that never
train. Seeds are those of runs: first loadings, and the question sets that groups are scored on. A
cell is one training; its line is added to the file once it has ended, and it is not run again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from in_process import Line, keep, lines_of, scored, settings_of, trained
from measuring import parse, publish

from pluralllm_app.experiments.results import Interval
from pluralllm_app.experiments.tables import format_interval
from pluralllm_app.learning import factors, sums
from pluralllm_app.learning.base import Contribution, State
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.predictors.factors.packing import pack_factors, unpack_factors
from pluralllm_app.survey.prepared import PreparedSurvey

NOTHING = 1e-12  # variance of what a group has of its own; 0 says that it is not known yet


class WithoutText(FactorsLearner):
    """Offsets and loadings have a prior of mean 0, whatever the texts."""

    @cached_property
    def _features(self) -> sums.TextFeatures:
        return sums.TextFeatures(np.zeros_like(super()._features.phi))


class WithoutOwn(FactorsLearner):
    """Groups differ by their latents alone."""

    def combine(
        self, round_number: int, state: State, contributions: Iterable[Contribution]
    ) -> State:
        found = super().combine(round_number, state, contributions)
        learned = unpack_factors(found.sent)
        variances = replace(learned.variances, own=NOTHING)
        return State(
            {**found.sent, **pack_factors(replace(learned, variances=variances))}, found.kept
        )


@dataclass(frozen=True)
class Variant:
    """What is not as it is by default."""

    learner: type[FactorsLearner] = FactorsLearner
    described: bool = True
    constant: tuple[Any, str, float] = (factors, "OWN", factors.OWN)  # module, name, value


WHOLE = "whole"
VARIANTS = {
    WHOLE: Variant(),
    "without the text prior of offsets and loadings": Variant(WithoutText),
    "without what is a group's own": Variant(WithoutOwn),
    "without descriptions": Variant(described=False),
    "2 factors at most": Variant(constant=(factors, "MOST_FACTORS", 2)),
    "4 factors at most": Variant(constant=(factors, "MOST_FACTORS", 4)),
    "first loadings of one size": Variant(constant=(sums, "DECAY_GROUPS", 0.0)),
    "100 landmarks": Variant(constant=(factors, "LANDMARKS", 100)),
}


def cell(survey: PreparedSurvey, rounds: int, variant: Variant, seed: int) -> Line:
    """Train once, and score."""
    settings = settings_of(**{"seed": seed, "evaluation-seed": seed, "rounds": rounds})
    train, others = (
        [survey.preferences(group.name) for group in survey.groups if group.role == role]
        for role in ("train", "evaluation")
    )
    if not variant.described:
        train, others = (
            [replace(own, description=None) for own in groups] for groups in (train, others)
        )
    learner = variant.learner(settings, survey.all_questions, len(train))
    module, name, value = variant.constant
    with patch.object(module, name, value):
        predictor, number = trained(learner, train, rounds)
        return scored(predictor, others, settings, survey.metric) | {"rounds": number}


def table(lines: Sequence[Line]) -> dict[str, Any]:
    """By variant: alignment, worst group, and the difference to the whole, paired over seeds."""
    by_variant = {
        variant: {line["seed"]: line for line in lines if line["variant"] == variant}
        for variant in VARIANTS
    }
    whole = by_variant[WHOLE]
    found: dict[str, Any] = {}
    for variant, by_seed in by_variant.items():
        own = [by_seed[seed] for seed in sorted(by_seed) if seed in whole]
        if not own:
            continue
        found[f"{variant}: alignment"] = format_interval(
            Interval.of([line["alignment"] for line in own])
        )
        found[f"{variant}: worst"] = format_interval(Interval.of([line["worst"] for line in own]))
        if variant != WHOLE:
            lost = [line["alignment"] - whole[line["seed"]]["alignment"] for line in own]
            found[f"{variant}: minus whole"] = format_interval(Interval.of(lost))
        held = np.mean([line["coverage"] for line in own], axis=0)
        found[f"{variant}: in intervals of 80 %, 95 %"] = f"{held[0]:.1%}, {held[1]:.1%}"
    return found


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True, help="prepared"),
            parser.add_argument("--lines", type=Path, required=True, help="file of the results"),
            parser.add_argument("--seeds", type=int, default=5),
            parser.add_argument("--rounds", type=int, default=30),
        ),
    )
    survey = PreparedSurvey.open(arguments.survey)
    conditions = {"survey": survey.fingerprint, "most rounds": arguments.rounds}
    for seed in range(arguments.seeds):
        for name, variant in VARIANTS.items():
            run = partial(cell, survey, arguments.rounds, variant, seed)
            keep(arguments.lines, {**conditions, "variant": name, "seed": seed}, run)
    lines = [line for line in lines_of(arguments.lines) if conditions.items() <= line.items()]
    publish("ablations", table(lines), arguments.json)


if __name__ == "__main__":
    main()
