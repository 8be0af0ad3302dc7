"""Predicted answers, as a user reads them: shares by option, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, overload

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.core.wording import many
from pluralllm_app.predictors.base import LEVELS, Prediction
from pluralllm_app.scoring.metrics import js_alignment
from pluralllm_app.use.questions import Question

BAR = 30  # characters of a share of 1
LONGEST = 48  # characters of an option
INKS = "\u2588\u2593\u2591"  # solid, dark, light
ASCII_INKS = "#=-"


@dataclass(frozen=True, eq=False)
class PredictedAnswer:
    """How a group is predicted to answer one question.

    >>> answer["Yes"], answer.intervals[0.8]["Yes"]
    (0.62, (0.48, 0.75))
    """

    question: Question
    shares: Mapping[str, float]  # by option, in the question's order; they sum to 1
    deviation: Mapping[str, float] | None  # standard deviation of each; None: not known
    intervals: Mapping[float, Mapping[str, tuple[float, float]]]
    """By level (0.8, 0.95) and option: the least and largest share. Empty for predictors that have
    none."""
    known: bool = True  # whether the question is one of the survey

    def __getitem__(self, option: str) -> float:
        return self.shares[option]

    def rows(self) -> list[dict[str, Any]]:
        """A record for each option: question, option, share, and bounds where there are some."""
        return [
            {
                "question_id": self.question.id,
                "question": self.question.text,
                "new": not self.known,
                "option": option,
                "share": share,
                "deviation": None if self.deviation is None else self.deviation[option],
                **{
                    f"{end}_{level:.0%}".rstrip("%"): bounds[option][side]
                    for level, bounds in self.intervals.items()
                    for side, end in enumerate(("low", "high"))
                },
            }
            for option, share in self.shares.items()
        ]

    def lines(self, inks: str = INKS) -> list[str]:
        """The question, and for each option its share as a number and a bar, with its interval.

        A bar is solid up to the lower end of the 80 % interval, and ends at the upper one.

        Args:
            inks: the characters of a bar up to the interval, up to the share, and beyond it.
        """
        width = min(max(map(len, self.shares)), LONGEST)
        lines = [self.question.text]
        for option, share in self.shares.items():
            low, high = self.intervals.get(LEVELS[0], {}).get(option, (share, share))
            ends = [
                round(BAR * min(end, 1.0)) for end in (min(low, share), share, max(high, share))
            ]
            bar = "".join(
                ink * (end - start) for ink, start, end in zip(inks, [0, *ends], ends, strict=False)
            )
            bounds = f"  {low:4.0%} to {high:.0%}" if self.intervals else ""
            name = option if len(option) <= width else shorten(option, width)
            lines.append(f"  {name:<{width}}  {share:4.0%}  {bar:<{BAR}}{bounds}".rstrip())
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


class PredictedAnswers(Sequence[PredictedAnswer]):
    """Predicted answers to several questions, in the order in which these were asked."""

    def __init__(self, answers: Sequence[PredictedAnswer]) -> None:
        self._answers = list(answers)

    @overload
    def __getitem__(self, place: int) -> PredictedAnswer: ...
    @overload
    def __getitem__(self, place: slice) -> "PredictedAnswers": ...
    def __getitem__(self, place: int | slice) -> "PredictedAnswer | PredictedAnswers":
        if isinstance(place, slice):
            return PredictedAnswers(self._answers[place])
        return self._answers[place]

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[PredictedAnswer]:
        return iter(self._answers)

    def rows(self) -> list[dict[str, Any]]:
        """A record for each option of each question, e.g. for `pandas.DataFrame`."""
        return [row for answer in self._answers for row in answer.rows()]

    def alignment(self, true: Sequence[Sequence[float]]) -> float:
        """1 - the mean Jensen-Shannon distance to the true shares.

        Args:
            true: of each question, in the order of its options, summing to 1.

        Raises:
            ValueError: they are not shares of these questions.
        """
        options = np.array([len(answer.shares) for answer in self._answers])
        sums = [sum(shares) for shares in true]
        if [len(shares) for shares in true] != options.tolist() or not np.allclose(
            sums, 1, atol=1e-3
        ):
            raise ValueError(
                "the true shares must be one for each option of each question, and sum to 1 per "
                "question"
            )
        predicted = [share for answer in self._answers for share in answer.shares.values()]
        given = [share for shares in true for share in shares]
        return float(js_alignment(predicted, given, options).mean())

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._answers))

    def __repr__(self) -> str:
        return f"<predicted answers to {many(len(self), 'question')}>"


def predicted_answers(
    questions: Sequence[Question], known: Sequence[bool], prediction: Prediction, options: Ints
) -> PredictedAnswers:
    """Put predicted shares [T] together with the questions that they are of.

    Args:
        questions: that were asked, Q of them.
        known: whether each is one of the survey.
        prediction: of all their options.
        options: [Q] how many each has.
    """
    ends = np.cumsum(options)
    answers = []
    for question, of_survey, end, count in zip(questions, known, ends, options, strict=True):
        part = slice(end - count, end)

        def by_option(values: Doubles, question: Question = question) -> dict[str, float]:
            return dict(zip(question.options, values.tolist(), strict=True))

        deviation = None
        if prediction.deviation is not None:
            deviation = by_option(prediction.deviation[part])
        intervals: dict[float, dict[str, tuple[float, float]]] = {}
        if prediction.intervals is not None:
            for level, (low, high) in zip(LEVELS, prediction.intervals, strict=True):
                bounds = zip(low[part].tolist(), high[part].tolist(), strict=True)
                intervals[level] = dict(zip(question.options, bounds, strict=True))
        answers.append(
            PredictedAnswer(
                question, by_option(prediction.shares[part]), deviation, intervals, of_survey
            )
        )
    return PredictedAnswers(answers)
