"""Questions of a survey, one group's answers to them, and the tasks drawn from these.

A *preference set* holds all questions that one group answered: for each question the rows of its
options in the survey's embedding table, and the share of the group that picks each option.
A *task* is some of them as context (shares given) and some others as target (shares to predict).
Everything here is flat: the options of question 0, then of question 1, and so on, so that no
function loops over questions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import (
    Bools,
    Doubles,
    Floats,
    Halves,
    Ints,
    segment_rows,
    segment_starts,
)
from pluralllm_app.settings import SplitSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class QuestionSet:
    """Questions of a survey: Q of them, with R options in all."""

    embeddings: Halves  # [table rows, dim_x]: of every option of the survey, mapped from its file
    questions: Ints  # [Q] index of each question in the survey
    first_rows: Ints  # [Q] row of each question's first option in `embeddings`
    options: Ints  # [Q] option counts, each >= 2
    values: Floats | None = None  # [R] ordinal values of the options, for the Wasserstein score

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def rows(self) -> Ints:
        """[R] row of each option in `embeddings`."""
        return segment_rows(self.first_rows, self.options)

    @property
    def starts(self) -> Ints:
        """[Q] position of each question's first option among the R options."""
        return segment_starts(self.options)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreferenceSet(QuestionSet):
    """Questions that one group answered, its answers, and what is known of the group."""

    group: str
    shares: Floats  # [R] share of the group that picks each option; sums to 1 per question
    respondents: Doubles | None = None  # [Q] people asked, NaN where unknown; None: all unknown
    # [Q] people whose answers would vary by chance as much as noise makes these do; None: no noise
    noise: Doubles | None = None
    description: Floats | None = None  # [dim_x] embedding of a text that says who the group is

    def select(self, positions: Ints) -> "PreferenceSet":
        """The questions at `positions` [n], each in 0..Q-1, with the group's answers."""
        flat = self._flat(positions)
        return PreferenceSet(
            group=self.group,
            shares=self.shares[flat],
            respondents=None if self.respondents is None else self.respondents[positions],
            noise=None if self.noise is None else self.noise[positions],
            description=self.description,
            **self._questions(positions, flat),
        )

    def ask(self, positions: Ints) -> QuestionSet:
        """The questions at `positions` [n] without the answers."""
        return QuestionSet(**self._questions(positions, self._flat(positions)))

    def task(self, context: Ints, target: Ints) -> "Task":
        """The task to predict the answers at positions `target` from those at `context`."""
        return Task(self.select(context), self.select(target))

    def _flat(self, positions: Ints) -> Ints:
        return segment_rows(self.starts[positions], self.options[positions])

    def _questions(self, positions: Ints, flat: Ints) -> dict[str, Any]:
        return {
            "embeddings": self.embeddings,
            "questions": self.questions[positions],
            "first_rows": self.first_rows[positions],
            "options": self.options[positions],
            "values": None if self.values is None else self.values[flat],
        }


@dataclass(frozen=True)
class Task:
    """Predict a group's answers to the questions of `target` from those of `context`."""

    context: PreferenceSet
    target: PreferenceSet


@dataclass(frozen=True)
class TaskSize:
    """How many questions a training task has; both bounds of each range are included."""

    context_min: int
    context_max: int
    target_min: int
    target_max: int


def draw_task(candidates: Ints, size: TaskSize, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw disjoint context and target positions from `candidates`, as many as `size` says.

    The paper draws both numbers from U[9, 90]. Where there are too few candidates for the numbers
    drawn, the context gets smaller first, down to its minimum, and then the target.
    """
    context = int(rng.integers(size.context_min, size.context_max, endpoint=True))
    target = int(rng.integers(size.target_min, size.target_max, endpoint=True))
    context = max(size.context_min, min(context, len(candidates) - target))
    target = min(target, len(candidates) - context)
    drawn = rng.permutation(candidates)[: context + target]
    return drawn[:context], drawn[context:]


@dataclass(frozen=True)
class Split:
    """The positions 0..Q-1 of a group's questions in three parts, each in ascending order."""

    train: Ints  # a train group trains on these; the contexts of any group come from these
    held_out: Ints  # a train group's own held-out questions; other groups may train on them
    reserved: Ints  # questions that no group trains on


def reserved_questions(questions: Ints, settings: SplitSettings) -> Bools:
    """Which of some questions, given by their index in the survey [n], no group trains on: [n].

    Each question is reserved with probability `reserved_fraction`. Whether it is depends on the
    evaluation seed and the question's index alone.
    """
    rng = generator(settings.evaluation_seed, "reserved-questions")
    draws = rng.random(int(questions.max(initial=-1)) + 1)
    mask: Bools = draws[questions] < settings.reserved_fraction
    return mask


def split_questions(preferences: PreferenceSet, role: str, settings: SplitSettings) -> Split:
    """Split a group's questions, depending on the evaluation seed and the group's name alone.

    A train group holds out `held_out_fraction` of the questions that are not reserved, at least
    one. An evaluation group holds out none, since nobody trains on it.
    """
    mask = reserved_questions(preferences.questions, settings)
    rest, reserved = np.flatnonzero(~mask), np.flatnonzero(mask)
    if role != "train":
        return Split(rest, np.empty(0, np.int64), reserved)
    order = generator(settings.evaluation_seed, "hold-out", preferences.group).permutation(rest)
    count = len(rest) - max(1, round(len(rest) * settings.held_out_fraction))
    return Split(np.sort(order[:count]), np.sort(order[count:]), reserved)
