"""What a language model is compared with, and which questions of which groups that leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Ints
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError, UserError
from pluralllm_app.judge.plan import Plan, make_plan
from pluralllm_app.judge.verdict import Contender, Method
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.consensus import Consensus
from pluralllm_app.predictors.uniform import Uniform
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.evaluation import Draw
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.predictor import Predictor

CONTEXT = 20  # answers that a predictor is given, where it does not say itself


@dataclass(frozen=True, eq=False)
class Setting:
    """What is asked, and what the answers are compared with."""

    plan: Plan
    beside: Sequence[Contender]
    predictor: str | None  # what the predictor is, in a sentence


def prepare_setting(
    survey: PreparedSurvey,
    names: Sequence[str],
    source: str | Path | None,
    most: int,
    seed: int,
) -> Setting:
    """Choose groups and questions, and fit or load what needs no language model.

    Args:
        survey: whose groups are answered for.
        names: of groups; none: those for evaluation.
        source: of a predictor, see `Predictor.from_pretrained`; None: there is none. What it is
            given of a group, nobody is scored on.
        most: questions of a group, at most.
        seed: of what is given, and of the choice of questions.

    Raises:
        SurveyError: there is no such group, or it has too few answers.
        PredictorError: there is no such predictor, or it is of another survey.
        UserError: it was trained on one of the groups.
    """
    groups = _groups(survey, names)
    answers = {name: survey.preferences(name) for name in groups}
    model, context = (None, 0) if source is None else _predictor(survey, groups, source)
    draws = {name: _draw(own, context, seed) for name, own in answers.items()}
    plan = make_plan(survey, answers, draws, most, seed)
    beside, about = [], None
    if model is not None:
        about = f"{model.title} ({source}), given {context} answers of each group"
        beside.append(Contender(Method("predictor", "predictor"), predictor=model))
    train = [survey.preferences(group.name) for group in survey.groups if group.role == "train"]
    # A group among them is left out where it is predicted.
    if any(own.group not in groups for own in train):
        fitted = Consensus.fit(train)
        beside.append(Contender(Method("consensus", "consensus"), predictor=fitted))
    beside.append(Contender(Method("uniform", "uniform"), predictor=Uniform()))
    return Setting(plan, beside, about)


def _groups(survey: PreparedSurvey, names: Sequence[str]) -> list[str]:
    chosen = [survey.group(name).name for name in dict.fromkeys(names)]
    if chosen:
        return chosen
    found = [group.name for group in survey.groups if group.role == "evaluation"]
    if not found:
        raise SurveyError(
            f"survey {survey.path} has no groups for evaluation: name those to answer for with "
            "--group"
        )
    return found


def _predictor(
    survey: PreparedSurvey, groups: Sequence[str], source: str | Path
) -> tuple[ContextPredictor, int]:
    """A predictor, and how many answers it is given."""
    predictor = Predictor.from_pretrained(source, questionnaire=survey.path)
    training = predictor.training
    known = set(training.train_groups) if training else set()
    if seen := [name for name in groups if name in known]:
        raise UserError(
            f"the predictor {source} was trained on {', '.join(seen)}, so that its score there "
            "would be too good: leave out these groups, or --predictor"
        )
    return predictor.model, training.context if training else CONTEXT


def _draw(answers: PreferenceSet, context: int, seed: int) -> Draw:
    """Positions that are given to a predictor, as in runs, and all others."""
    if len(answers) <= context:
        raise SurveyError(
            f"group {answers.group!r} has answered {many(len(answers), 'question')}, and the "
            f"predictor is given {context}: leave out the group, or --predictor"
            if context
            else f"group {answers.group!r} has answered no question: leave it out"
        )
    order = generator(seed, "context", answers.group, 0).permutation(np.arange(len(answers)))
    given: Ints = np.sort(order[:context])
    return given, np.sort(order[context:])
