"""True and predicted shares of every group the person at the keyboard holds the answers of.

Predictions are those of a run's best model on the context and targets of its first evaluation
draw. Numbers are thousandths, texts stand once: a page for 14 groups stays small.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pluralllm_app.errors import PredictorError, UserError
from pluralllm_app.experiments.results import Run
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.saved import load_predictor
from pluralllm_app.report.sources import ReportMethod, Sources
from pluralllm_app.scoring.evaluation import evaluation_draws, score_shares
from pluralllm_app.settings import EvaluationSettings, SplitSettings, read_section
from pluralllm_app.survey.prepared import PreparedSurvey

HOW_TO = "give the prepared survey that the run was trained on: pluralllm report ... --survey DIR"


class NoPredictionsError(UserError):
    """Why there is nothing to show, and how to get it."""


@dataclass(frozen=True)
class Predictions:
    """What the page shows of a run's predictions."""

    method: str  # title
    run: Run
    context: int  # questions of a group whose answers the model is given
    missing: list[str]  # groups whose answers are not here
    withheld: list[str]  # groups whose answers are, and were hidden by noise
    content: dict[str, Any]  # see `predict`


def predict(
    sources: Sources, survey: Path | None, progress: Callable[[int, int], None]
) -> Predictions:
    """Predict for every group with the best model of the first run that has one.

    Where a run has noise, train groups are left out: a page of their true answers would undo it.

    ``content``: ``questions`` (id, text, options of each that a group has), and ``groups``: name,
    role, and ``answers``, each [question, true shares, predicted shares, score].

    Args:
        survey: None: where the run found it.
        progress: called with groups done and groups in all.

    Raises:
        NoPredictionsError: no model, or no survey here.
        UserError: `survey` is not the survey of the run.
    """
    method, run = _best_run(sources)
    prepared = _open_survey(run, survey)
    # What scoring needs, no more: a run of before a setting was added has not all settings.
    split = read_section(SplitSettings, run.info.settings)
    evaluation = read_section(EvaluationSettings, run.info.settings)
    predictor = _load(run.path / "best")
    here = {group.name for group in prepared.groups if (prepared.path / group.file).exists()}
    roster = sorted(run.info.roster or [], key=lambda entry: (entry.role, entry.group))
    hidden = {entry.group for entry in roster if run.info.noise and entry.role == "train"}
    chosen = [entry for entry in roster if entry.group in here - hidden]
    if not chosen and hidden:
        raise NoPredictionsError("Noise hides what the groups of this run answered.")
    if not chosen:
        raise NoPredictionsError(f"No group's answers are in {prepared.path}: {HOW_TO}.")
    groups: list[dict[str, Any]] = []
    used: set[int] = set()
    for done, entry in enumerate(chosen):
        progress(done, len(chosen))
        try:
            answers = _answers(predictor, prepared, entry.group, entry.role, split, evaluation)
        except ValueError as error:
            raise NoPredictionsError(
                f"{run.path / 'best'} is no model for this survey: {error}"
            ) from error
        used |= {answer[0] for answer in answers}
        groups.append({"name": entry.group, "role": entry.role, "answers": answers})
    questions = prepared.questions()
    place = {question: index for index, question in enumerate(sorted(used))}
    for group in groups:
        for answer in group["answers"]:
            answer[0] = place[answer[0]]
    content = {
        "questions": [[questions.ids[i], questions.texts[i], questions.options[i]] for i in place],
        "groups": groups,
    }
    missing = [entry.group for entry in roster if entry.group not in here | hidden]
    context = evaluation.evaluation_context
    return Predictions(method.title, run, context, missing, sorted(hidden), content)


def _best_run(sources: Sources) -> tuple[ReportMethod, Run]:
    for federated in (True, False):
        for method in sources.methods:
            for run in method.result.runs:
                usable = (run.path / "best").is_dir() and run.info.survey
                if usable and federated == (method.kind == "federated"):
                    return method, run
    raise NoPredictionsError("None of these runs has kept a best model yet.")


def _open_survey(run: Run, given: Path | None) -> PreparedSurvey:
    assert run.info.survey is not None
    fingerprint = run.info.survey.fingerprint
    if given is not None:
        survey = PreparedSurvey.open(given.expanduser())
        if survey.fingerprint != fingerprint:
            raise UserError(
                f"--survey {given} is another survey than that of {run.path} (fingerprint "
                f"{survey.fingerprint[:12]}, of the run {fingerprint[:12]})"
            )
        return survey
    recorded = str(run.info.settings.get("survey", ""))
    try:
        survey = PreparedSurvey.open(recorded)
    except UserError as error:
        raise NoPredictionsError(
            f"The survey is not where the run found it ({error}): {HOW_TO}."
        ) from error
    if survey.fingerprint != fingerprint:
        raise NoPredictionsError(
            f"{recorded} is no longer the survey of the run, its fingerprint differs: {HOW_TO}."
        )
    return survey


def _load(path: Path) -> ContextPredictor:
    try:
        return load_predictor(path)
    except PredictorError as error:
        raise NoPredictionsError(f"The model {path} is damaged: {error}") from error


def _answers(
    predictor: ContextPredictor,
    survey: PreparedSurvey,
    group: str,
    role: str,
    split: SplitSettings,
    evaluation: EvaluationSettings,
) -> list[list[Any]]:
    preferences = survey.preferences(group)
    context, target = evaluation_draws(preferences, role, split, evaluation)[0]
    if not len(target):
        return []
    task = preferences.task(context, target)
    predicted = predictor.predict(task.context, task.target).shares
    true = task.target.shares
    scores = score_shares(preferences, [(context, target)], [predicted], survey.metric).scores
    ends = np.cumsum(preferences.options[target])[:-1]
    return [
        [int(question), _thousandths(given), _thousandths(guess), round(float(score), 3)]
        for question, given, guess, score in zip(
            preferences.questions[target],
            np.split(true, ends),
            np.split(predicted, ends),
            scores,
            strict=True,
        )
    ]


def _thousandths(shares: Any) -> list[int]:
    return [round(1000 * float(share)) for share in shares]
