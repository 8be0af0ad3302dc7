"""What each part of the latent factors is worth, and what else was tried, paired with the whole.

    python benchmarks/ablations.py --survey data/globalopinionqa-described --lines ablations.jsonl

Factors by conf/factors.toml, both halves in this process without messages, on the groups that never
train. Seeds are those of runs: first loadings, and the question sets that groups are scored on. A
cell is one training; its line is added to the file once it has ended, and it is not run again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from pluralllm_app.predictors.factors.model import Belief
from pluralllm_app.predictors.factors.packing import pack_factors, unpack_factors
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.preferences import PreferenceSet, QuestionSet
from pluralllm_app.settings import Scalar
from pluralllm_app.survey.prepared import PreparedSurvey

OTHER_START = 1000  # seeds apart, so that no start is one of another cell
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


class MeanOf(FactorsPredictor):
    """The mean of what several predictors believe, in the model's coordinates."""

    def __init__(self, several: Sequence[FactorsPredictor]) -> None:
        one = several[0]
        super().__init__(one.factors, one.kernel, one.calibration, one.prior, one.text)
        self._several = several

    def believe_each(self, pairs: Sequence[tuple[PreferenceSet, QuestionSet]]) -> list[Belief]:
        """As they do on average."""
        return [
            replace(
                beliefs[0],
                mean=np.mean([belief.mean for belief in beliefs], axis=0),
                variance=np.mean([belief.variance for belief in beliefs], axis=0),
            )
            for beliefs in zip(*(one.believe_each(pairs) for one in self._several), strict=True)
        ]


def scaled(own: float = 1.0, noise: float = 1.0, length: float = 1.0) -> "Change":
    """Predict with variances, or a text kernel's length, so many times those that were learned."""

    def change(predictor: FactorsPredictor) -> FactorsPredictor:
        learned = predictor.factors
        variances = replace(
            learned.variances,
            own=own * learned.variances.own,
            noise=noise * learned.variances.noise,
        )
        return FactorsPredictor(
            replace(learned, variances=variances),
            replace(predictor.kernel, length=length * predictor.kernel.length),
            predictor.calibration,
            predictor.prior,
            predictor.text,
        )

    return change


Change = Callable[[FactorsPredictor], FactorsPredictor]
AS_LEARNED = scaled()


@dataclass(frozen=True)
class Variant:
    """What is not as it is by default."""

    learner: type[FactorsLearner] = FactorsLearner
    described: bool = True
    constant: tuple[Any, str, float] = (factors, "OWN", factors.OWN)  # module, name, value
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    starts: int = 1  # first loadings, whose predictions are averaged
    change: Change = AS_LEARNED  # of the trained predictor


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
    "one question a group held out": Variant(settings={"held-out-fraction": 0.001}),
    "mean of three starts": Variant(starts=3),
    "predicting with half of a group's own": Variant(change=scaled(own=0.5)),
    "predicting with twice a group's own": Variant(change=scaled(own=2.0)),
    "predicting with half the noise": Variant(change=scaled(noise=0.5)),
    "predicting with twice the noise": Variant(change=scaled(noise=2.0)),
    "predicting with 0.7 of the kernel's length": Variant(change=scaled(length=0.7)),
    "predicting with 1.4 of the kernel's length": Variant(change=scaled(length=1.4)),
}


def cell(survey: PreparedSurvey, rounds: int, variant: Variant, seed: int) -> Line:
    """Train once, and score."""
    chosen = {"evaluation-seed": seed, "rounds": rounds, **variant.settings}
    settings = settings_of(**chosen)
    train, others = (
        [survey.preferences(group.name) for group in survey.groups if group.role == role]
        for role in ("train", "evaluation")
    )
    if not variant.described:
        train, others = (
            [replace(own, description=None) for own in groups] for groups in (train, others)
        )
    module, name, value = variant.constant
    with patch.object(module, name, value):
        several, numbers = [], []
        for start in range(variant.starts):
            other = settings_of(**chosen, seed=seed + start * OTHER_START)
            learner = variant.learner(other, survey.all_questions, len(train))
            predictor, number = trained(learner, train, rounds)
            several.append(variant.change(predictor))
            numbers.append(number)
        found = several[0] if len(several) == 1 else MeanOf(several)
        return scored(found, others, settings, survey.metric) | {"rounds": max(numbers)}


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
            parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)),
        ),
    )
    survey = PreparedSurvey.open(arguments.survey)
    conditions = {"survey": survey.fingerprint, "most rounds": arguments.rounds}
    for seed in range(arguments.seeds):
        for name in arguments.variants:
            run = partial(cell, survey, arguments.rounds, VARIANTS[name], seed)
            keep(arguments.lines, {**conditions, "variant": name, "seed": seed}, run)
    lines = [line for line in lines_of(arguments.lines) if conditions.items() <= line.items()]
    publish("ablations", table(lines), arguments.json)


if __name__ == "__main__":
    main()
