"""What the service answers, apart from HTTP."""

import math
from collections.abc import Iterable, Sequence
from itertools import islice

from pluralllm_app.serve.groups import Groups, check_new
from pluralllm_app.serve.limits import LISTED
from pluralllm_app.serve.messages import (
    AskedQuestion,
    AskRequest,
    AskResponse,
    CardResponse,
    Choice,
    CompareRequest,
    CompareResponse,
    Difference,
    Interval,
    Predicted,
    PredictRequest,
    PredictResponse,
    QuestionsResponse,
    SurveyQuestion,
)
from pluralllm_app.serve.rewards import Rewards
from pluralllm_app.use.asking import factors_of
from pluralllm_app.use.group import Group
from pluralllm_app.use.predicted import PredictedAnswer
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question

DIGITS = 6  # of shares: their own uncertainty is far larger


class Service:
    """A predictor that answers requests; its threads may share it."""

    def __init__(self, predictor: Predictor, named: Iterable[Group] = ()) -> None:
        """Serve a predictor.

        Args:
            predictor: to serve.
            named: groups that `/reward` may be asked for by name.
        """
        self._predictor = predictor
        self.groups = Groups(predictor)
        self.rewards = Rewards(self.groups, named)
        self._searched = [
            "\n".join((question.id or "", question.text, *question.options)).casefold()
            for question in predictor.questions
        ]

    def card(self) -> CardResponse:
        """What is served."""
        predictor, about = self._predictor, self._predictor.about
        return CardResponse(
            title=predictor.model.title,
            survey=about.survey,
            synthetic=about.synthetic,
            questions=len(predictor.questions),
            new_texts=predictor.texts.ready,
            asks=factors_of(predictor.model) is not None,
            least_answers=predictor.model.least_context,
            card=predictor.card(),
        )

    def questions(self, search: str, start: int) -> QuestionsResponse:
        """The survey's questions that have all words of `search`, from the place `start` on."""
        words = set(search.casefold().split())
        found = [
            question
            for question, text in zip(self._predictor.questions, self._searched, strict=True)
            if all(word in text for word in words)
        ]
        page = found[start : start + LISTED]
        return QuestionsResponse(list(map(_question, page)), len(found))

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Predict a group's answers.

        Raises:
            Refused, UserError: it cannot be done.
        """
        asked = _asked(request.questions)
        group = self.groups.group(request)
        found = group.predict(asked)
        return PredictResponse(list(map(_predicted, found)), group.notes)

    def ask(self, request: AskRequest) -> AskResponse:
        """Choose questions to put to a group.

        Raises:
            Refused, UserError: it cannot be done.
        """
        among = None if request.among is None else _asked(request.among)
        about = None if request.about is None else _asked(request.about)
        group = self.groups.group(request)
        chosen = group.ask(request.count, among, about)
        choices = [
            Choice(_question(each.question), round(each.explained, DIGITS)) for each in chosen
        ]
        return AskResponse(choices, group.notes)

    def compare(self, request: CompareRequest) -> CompareResponse:
        """Compare two groups.

        Raises:
            Refused, UserError: it cannot be done.
        """
        asked = None if request.questions is None else _asked(request.questions)
        one, other = map(self.groups.group, (request.one, request.other))
        found = one.compare(other, asked)
        differences = [
            Difference(
                _question(each.one.question),
                round(each.distance, DIGITS),
                _rounded(each.one.shares.values()),
                _rounded(each.other.shares.values()),
            )
            for each in islice(found.differences, request.count)
        ]
        notes = list(dict.fromkeys([*one.notes, *other.notes]))
        alignment = round(found.alignment, DIGITS)
        return CompareResponse(alignment, len(found.differences), differences, notes)


def _asked(questions: Sequence[str | AskedQuestion]) -> list[str | Question]:
    given = [each for each in questions if isinstance(each, AskedQuestion)]
    check_new([each.options for each in given], "questions")
    return [
        Question(each.text, each.options) if isinstance(each, AskedQuestion) else each
        for each in questions
    ]


def _predicted(answer: PredictedAnswer) -> Predicted:
    intervals = [
        Interval(level, *(_rounded(ends[side] for ends in bounds.values()) for side in (0, 1)))
        for level, bounds in answer.intervals.items()
    ]
    return Predicted(_question(answer.question), _rounded(answer.shares.values()), intervals)


def _question(question: Question) -> SurveyQuestion:
    return SurveyQuestion(question.id, question.text, list(question.options))


def _rounded(shares: Iterable[float]) -> list[float]:
    rounded = [round(share, DIGITS) for share in shares]
    if not all(map(math.isfinite, rounded)):
        raise ArithmeticError("a share is no number")  # JSON would say null
    return rounded
