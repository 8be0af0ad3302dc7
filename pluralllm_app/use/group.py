"""A group in use: what is known of it, and what is predicted from that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import Any

import numpy as np

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.wording import many
from pluralllm_app.errors import AnswersError
from pluralllm_app.predictors.base import Conditioned, ContextPredictor
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.evaluation import interval_coverage
from pluralllm_app.use.asking import NextQuestion, next_questions
from pluralllm_app.use.matching import KnownAnswers
from pluralllm_app.use.predicted import PredictedAnswer, PredictedAnswers, predicted_answers
from pluralllm_app.use.questions import Question, named
from pluralllm_app.use.survey import Asked, Located, Survey

WIDTH = 100  # characters of a line
SHOWN = 5  # questions, and options of each
FEWEST = 10  # answers that can tell how well they are predicted from one another


class Group:
    """A group, with the predictor that knows it from `Predictor.group`.

    What depends on its answers alone is computed once, at the first prediction.
    """

    def __init__(
        self,
        model: ContextPredictor,
        survey: Survey,
        known: KnownAnswers,
        context: PreferenceSet,
        notes: Sequence[str],
    ) -> None:
        """Use `Predictor.group`, which reads and checks answers, instead."""
        self.model = model
        self.survey = survey
        self.known = known
        self.context = context
        self.notes = list(notes)

    @property
    def name(self) -> str:
        """What it is called, in messages and tables."""
        return self.context.group

    @property
    def answered(self) -> Sequence[Question]:
        """The questions that it has answered."""
        return self.known.questions

    def predict(self, questions: Asked | None = None) -> PredictedAnswers:
        """Predict the group's answers.

        Args:
            questions: ids or texts of the survey's questions, new `Question`s with their options,
                or several of these; all questions of the survey that the group has not answered if
                not given.

        Returns:
            An answer for each question, in the order given.

        Raises:
            AnswersError: a question is not known and has no options, or cannot be asked.
            PredictorError: a new question cannot be embedded here, or this kind predicts none.
        """
        if questions is None:
            questions = self._unanswered(None)
        asked = self._locate(questions)
        if not asked.questions:
            return PredictedAnswers([])
        self._note_answered(asked.questions)
        prediction = self.conditioned.predict(asked.rows)
        return predicted_answers(asked.questions, asked.known, prediction, asked.rows.options)

    def compare(self, other: "Group", questions: Asked | None = None) -> "Comparison":
        """Compare what is predicted for two groups of one predictor.

        Args:
            other: the other one.
            questions: see `predict`; all of the survey if not given.

        Raises:
            ValueError: the groups were made with two predictors.
            AnswersError, PredictorError: see `predict`.
        """
        if other.model is not self.model:
            raise ValueError("the groups are of two predictors: make both with one")
        asked = self._locate(questions)
        if not asked.questions:
            return Comparison((self.name, other.name), [])
        pair = [group.conditioned.predict(asked.rows) for group in (self, other)]
        distance = np.sqrt(js_divergence(pair[0].shares, pair[1].shares, asked.rows.options))
        answers = [
            predicted_answers(asked.questions, asked.known, prediction, asked.rows.options)
            for prediction in pair
        ]
        order = np.argsort(-distance, kind="stable")
        differences = [
            Difference(answers[0][place], answers[1][place], float(distance[place]))
            for place in order.tolist()
        ]
        return Comparison((self.name, other.name), differences)

    def ask(
        self,
        count: int = 5,
        among: Asked | None = None,
        about: Asked | None = None,
        costs: Mapping[Any, float] | None = None,
    ) -> list[NextQuestion]:
        """Choose the questions whose answers would tell most about the others.

        They are the same whatever the group answers, so that several can be asked at once.

        Args:
            count: how many, at most.
            among: which may be asked; all of the survey if not given.
            about: which one wants to know; all of the survey if not given.
            costs: of asking, above 0, by id, text or question; all alike if not given.

        Returns:
            The best one first. Those that the group has answered are left out.

        Raises:
            PredictorError: this kind of predictor cannot tell.
            AnswersError: a question is not known, or has no cost.
        """
        if not isinstance(count, int) or count < 1:
            raise AnswersError(f"{count!r} questions cannot be chosen: give a number of 1 or more")
        candidates = target = self._locate(self._unanswered(among))
        if among is not about:  # both None: all of the survey, found once
            target = self._locate(self._unanswered(about))
        by_key = None if costs is None else self._costs(costs)
        return next_questions(self.model, self.context, candidates, target, count, by_key)

    def _costs(self, costs: Mapping[Any, float]) -> dict[object, float]:
        found: dict[object, float] = {}
        for asked, cost in costs.items():
            question = self.survey.find(asked, [])[1]
            if found.setdefault(question.key, cost) != cost:
                raise AnswersError(f"{named(question)} has two costs: keep one")
        return found

    def _locate(self, wish: Asked | None) -> Located:
        """Find questions; what is noted of them is noted once."""
        notes: list[str] = []
        found = self.survey.locate(wish, notes)
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
        return found

    def _unanswered(self, wish: Asked | None) -> list[Question]:
        """Each question once, without those that were answered."""
        answered = {question.key for question in self.answered}
        asked = {question.key: question for question in self._locate(wish).questions}
        return [question for key, question in asked.items() if key not in answered]

    def _note_answered(self, asked: Sequence[Question]) -> None:
        keys = {question.key for question in asked}
        found = [question for question in self.answered if question.key in keys]
        if found:
            which = named(found[0]) if len(found) == 1 else f"{len(found)} of these questions"
            note = f"the group's answer to {which} is known: shown is the prediction all the same"
            self.notes += [note] if note not in self.notes else []

    @cached_property
    def held(self) -> float | None:
        """Of the shares given, the part inside the intervals of 80 % that other answers predict.

        Each half of the answers is predicted from the other. Far below 0.8 the group is unlike
        those that the predictor was trained on, or its answers are others than they are taken for,
        and intervals are too narrow. None for fewer than FEWEST answers, or where the predictor
        gives no intervals.
        """
        places = np.arange(len(self.context))
        if len(places) < FEWEST:
            return None
        halves = [places[places % 2 == odd] for odd in (0, 1)]
        pairs = [
            (self.context.select(halves[1 - half]), self.context.ask(halves[half]))
            for half in (0, 1)
        ]
        true = np.concatenate([self.context.select(half).shares for half in halves])
        coverage = interval_coverage(self.model.predict_each(pairs), true)
        return None if coverage is None else coverage[0]

    @cached_property
    def conditioned(self) -> Conditioned:
        """The predictor and the group's answers, put together."""
        return self.model.condition(self.context)

    def __repr__(self) -> str:
        return f"<group {self.name!r} with {many(len(self.answered), 'answer')}>"


@dataclass(frozen=True, eq=False)
class Difference:
    """A question, and how differently two groups are predicted to answer it."""

    one: PredictedAnswer
    other: PredictedAnswer
    distance: float  # Jensen-Shannon, 0 to 0.83: 1 - alignment of the two

    def change(self, option: str) -> float:
        """How much larger the other group's share of an option is."""
        return self.other[option] - self.one[option]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two groups, question by question; the largest difference first."""

    names: tuple[str, str]
    differences: Sequence[Difference]

    @property
    def alignment(self) -> float:
        """1 minus the mean distance: 1 if all answers are alike."""
        return 1 - sum(each.distance for each in self.differences) / max(len(self.differences), 1)

    def __str__(self) -> str:
        one, other = self.names
        lines = [
            f"{one} and {other}: alignment {self.alignment:.3f}",
            f"Questions by how far apart they are; shares of {one}, then of {other}.",
        ]
        for each in self.differences[:SHOWN]:
            lines.append(f"{each.distance:.2f}  {shorten(each.one.question.text, WIDTH)}")
            options = sorted(each.one.shares, key=lambda option: -abs(each.change(option)))
            lines += [
                f"      {each.one[option]:4.0%} {each.other[option]:4.0%}  "
                + shorten(option, WIDTH - 12)
                for option in options[:SHOWN]
            ]
            if len(options) > SHOWN:
                lines.append(f"      and {len(options) - SHOWN} more options")
        return "\n".join(lines)
