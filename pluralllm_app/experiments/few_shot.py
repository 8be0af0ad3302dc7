"""How well a run's predictor does from few answers of a group, and from many.

The context of a group is the first one of `evaluation.evaluation_draws`: that of fewer questions is
a part of that of more. Whatever the number, the same questions are predicted, at most TARGETS that
are in no context, so that the numbers compare. More draws would take as long as some trainings.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.seeding import generator
from pluralllm_app.errors import PredictorError
from pluralllm_app.experiments.methods import METHODS
from pluralllm_app.experiments.results import CONTEXTS, Comparison, Run
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.registry import BASELINES
from pluralllm_app.predictors.saved import load_predictor
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.records.reader import FEW_SHOT
from pluralllm_app.records.schema import FewShot, FewShotPoint, encode_file
from pluralllm_app.scoring.evaluation import Draw, evaluation_draws, score_shares
from pluralllm_app.scoring.pooled_survey import PooledSurvey
from pluralllm_app.settings import EvaluationSettings, SplitSettings, read_section

TARGETS = 100  # most questions of a group that are predicted
LEAST_TARGETS = 10  # with fewer left to predict, a number of context questions is left out


def unscored(comparison: Comparison) -> list[Run]:
    """The finished runs that `score_few_shot` can still score."""
    return [
        run
        for method in comparison.methods
        if method.same_as is None
        for run in method.runs
        if run.few_shot is None and (run.method in BASELINES or _saved(run).is_dir())
    ]


def score_few_shot(run: Run, pool: PooledSurvey) -> None:
    """Score a run's predictor at each of CONTEXTS, and write few-shot.json into the run.

    A number that leaves some group never trained on fewer than LEAST_TARGETS questions is left out,
    so that every number is scored on the same groups. A baseline is fitted again: runs do not keep
    the answers that it pools.

    Args:
        run: finished; one of `unscored`.
        pool: the survey of the run, with at least one group never trained on.

    Raises:
        PredictorError: the saved predictor is damaged, or of another survey.
    """
    split = read_section(SplitSettings, run.info.settings)
    evaluation = read_section(EvaluationSettings, run.info.settings)
    predictor = (
        pool.fit(BASELINES[run.method], split)
        if run.method in BASELINES
        else load_predictor(_saved(run))
    )
    groups = [pool.preferences[name] for name in pool.of_role("evaluation")]
    most, most_group = min((_most_context(group, split), group.group) for group in groups)
    contexts = [context for context in CONTEXTS if context <= most]
    draws = {group.group: _draws(group, contexts, split, evaluation) for group in groups}
    points = []
    for index, context in enumerate(contexts):
        alignment = None
        if context >= predictor.least_context:
            try:
                means = [
                    _score(predictor, group, draws[group.group][index], pool.metric)
                    for group in groups
                ]
            except ValueError as error:
                raise PredictorError(f"{_saved(run)} is of another survey: {error}") from error
            alignment = float(np.mean(means))
        points.append(FewShotPoint(context=context, alignment=alignment))
    few_shot = FewShot(points=points, most=most, most_group=most_group)
    write_atomically(run.path / FEW_SHOT, encode_file(few_shot))


def _draws(
    group: PreferenceSet,
    contexts: Sequence[int],
    split: SplitSettings,
    evaluation: EvaluationSettings,
) -> list[Draw]:
    """A draw for each number of `contexts`, which rise; all have the same targets."""
    drawn = [
        evaluation_draws(
            group,
            "evaluation",
            split,
            replace(evaluation, evaluation_draws=1, evaluation_context=context),
        )[0]
        for context in contexts
    ]
    rng = generator(split.evaluation_seed, "few-shot targets", group.group)
    targets = np.sort(rng.permutation(drawn[-1][1])[:TARGETS])
    return [(context, targets) for context, _ in drawn]


def _score(predictor: ContextPredictor, group: PreferenceSet, draw: Draw, metric: str) -> float:
    context, target = draw
    predicted = predictor.predict(group.select(context), group.ask(target)).shares
    return score_shares(group, [draw], [predicted], metric).mean


def _most_context(group: PreferenceSet, split: SplitSettings) -> int:
    """How many context questions a group can give, and still have LEAST_TARGETS to be predicted."""
    pool = split_questions(group, "evaluation", split).train
    return max(0, min(len(pool), len(group) - LEAST_TARGETS))


def _saved(run: Run) -> Path:
    """Where the predictor is whose score counts as the run's result, if it was saved."""
    spec = METHODS.get(run.method)
    return run.path / ("best" if spec and spec.until_converged else "model")
