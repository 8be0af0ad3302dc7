"""The questions and answers of a survey in memory, as a source gives them.

Shares are flat: those of answer 0 come first, then those of answer 1, and so on, one share for each
option of the question answered. This way no function needs to loop over answers.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Floats, Ints, segment_rows, segment_starts
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError

MOST_CHARACTERS = 1000  # of a description: a line or two; embedders cut a text of some 100 words


@dataclass(frozen=True)
class Questions:
    """Q multiple-choice questions with R options in all."""

    ids: Sequence[str]  # [Q], unique
    texts: Sequence[str]  # [Q]
    options: Sequence[Sequence[str]]  # [Q], each at least two texts
    values: Sequence[Sequence[float] | None]  # [Q] of the options, None if unordered

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> Ints:
        """[Q] the number of options of each question."""
        return np.fromiter(map(len, self.options), np.int64, len(self))

    @property
    def first_rows(self) -> Ints:
        """[Q] the row of each question's first option in the embedding table."""
        return segment_starts(self.counts)

    def select(self, kept: Ints) -> "Questions":
        """Return the questions at the indices `kept`, in that order."""
        return Questions(
            [self.ids[i] for i in kept],
            [self.texts[i] for i in kept],
            [self.options[i] for i in kept],
            [self.values[i] for i in kept],
        )

    def check(self) -> None:
        """Raise SurveyError unless ids are unique and all options and values are sound."""
        if len(self) == 0:
            raise SurveyError("no question is left: check the source and the chosen groups")
        seen: set[str] = set()
        for id_, text, options, values in zip(
            self.ids, self.texts, self.options, self.values, strict=True
        ):
            if id_ in seen:
                raise SurveyError(f"question id {id_!r} occurs twice: ids must be unique")
            seen.add(id_)
            if not text.strip():
                raise SurveyError(f"question {id_!r} has no text")
            if len(options) < 2:
                raise SurveyError(
                    f"question {id_!r} has {many(len(options), 'option')} but needs 2"
                )
            if values is None:
                continue
            if len(values) != len(options) or not all(map(math.isfinite, values)):
                raise SurveyError(f"question {id_!r} needs one finite ordinal value per option")
            if len(set(values)) == 1:
                raise SurveyError(f"question {id_!r} gives the same ordinal value to every option")


@dataclass(frozen=True)
class Answers:
    """A answers, each of one group to one question."""

    groups: Sequence[str]  # [G] group names
    group: Ints  # [A] index into `groups`
    question: Ints  # [A] index into the questions
    shares: Doubles  # [sum of the options of the questions answered] flat
    respondents: Doubles | None = None  # [A] people asked, NaN where the source does not tell
    influence: Doubles | None = None  # [A] see `Influence.largest`, NaN where it is not known
    most_answered: Mapping[str, int] = field(default_factory=dict)
    """By group: to how many questions one respondent gave an answer, at most. Without: to all."""

    def __len__(self) -> int:
        return len(self.group)

    def counts(self) -> dict[str, int]:
        """Return how many questions each group answers."""
        counts = np.bincount(self.group, minlength=len(self.groups))
        return dict(zip(self.groups, counts.tolist(), strict=True))

    def select(self, kept: Ints, questions: Questions) -> "Answers":
        """Return the answers at the indices `kept`, in that order."""
        if np.array_equal(kept, np.arange(len(self))):
            return self  # without a copy of all shares
        options = questions.counts[self.question]
        starts = segment_starts(options)
        return Answers(
            self.groups,
            self.group[kept],
            self.question[kept],
            self.shares[segment_rows(starts[kept], options[kept])],
            None if self.respondents is None else self.respondents[kept],
            None if self.influence is None else self.influence[kept],
            self.most_answered,
        )


@dataclass(frozen=True, eq=False)
class Influence:
    """How much of a group's answers one of its respondents can change, see `privacy.respondents`.

    It depends on who answered which question and on weights, and not on what was answered.
    """

    largest: Doubles  # [Q] the largest part of a question's weight that one respondent has
    questions: int  # to how many of them one respondent gave an answer, at most


@dataclass(frozen=True, eq=False)
class Description:
    """A text that says who a group is, as the survey's embedder sees it."""

    text: str
    embedding: Floats  # [dim]


@dataclass(frozen=True)
class SurveyContent:
    """A survey as a source gives it: clean, but not yet embedded, and with all of its groups."""

    name: str
    source: str
    licence: str
    questions: Questions
    answers: Answers
    synthetic: bool = False
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> how many
    # The groups that train and are evaluated unless the user chooses others; none: a seeded split.
    train: Sequence[str] = ()
    evaluation: Sequence[str] = ()
    # By group: its name in words that stand alone, where the name itself does not; and what else
    # the source says of it.
    names: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    metric: str = "jensen-shannon"  # unless the user chooses another
    evaluation_fraction: float = 0.25  # of the groups, for a split that the user gives no fraction
    note: str = ""  # what the source did to what it read, in a few words

    def restricted(self, groups: Sequence[str]) -> "SurveyContent":
        """Return the survey of these groups alone, with the questions that any of them answers.

        Other questions would take time to embed and be of no use to any run.
        """
        names = set(groups)
        chosen = np.array([name in names for name in self.answers.groups], bool)
        answers = self.answers.select(np.flatnonzero(chosen[self.answers.group]), self.questions)
        answered = np.bincount(answers.question, minlength=len(self.questions)) > 0
        survey = replace(self, answers=answers)
        return survey.keep_questions(answered, "questions that no chosen group answers")

    def ordinal(self, metric: str) -> "SurveyContent":
        """Return the survey with only the questions whose ordinal values `metric` can use."""
        has_values = np.array([values is not None for values in self.questions.values])
        return self.keep_questions(
            has_values, f"questions without ordinal values, which {metric} needs"
        )

    def keep_questions(self, kept: Bools, reason: str) -> "SurveyContent":
        """Return the survey with the questions for which `kept` [Q] is true; `reason` is noted."""
        answers = self.answers.select(np.flatnonzero(kept[self.answers.question]), self.questions)
        renumbered = np.cumsum(kept) - 1
        return replace(
            self,
            questions=self.questions.select(np.flatnonzero(kept)),
            answers=replace(answers, question=renumbered[answers.question]),
            dropped={**self.dropped, reason: int((~kept).sum())},
        )


def question_id(text: str, options: Sequence[str], source: str = "") -> str:
    """Return a short id that depends only on what the question says and where it comes from."""
    parts = chain((source, text), options)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
