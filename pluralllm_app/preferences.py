"""One group's preferences, and the tasks drawn from them.

A *preference set* holds all questions one group answered: for each question the rows of its
options in the survey's embedding table, and the share of the group that picks each option.
A *task* is a few of them as context (shares given) and others as target (shares to predict).
Everything here is flat: the options of question 0, then of question 1, and so on, so that no
function loops over questions.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Bools, Floats, Ints, segment_rows, segment_starts
from pluralllm_app.settings import SplitSettings


@dataclass(frozen=True)
class Task:
    """Context and target questions of one group, ready for the predictor.

    Shapes: C context option rows, T target option rows, Q target questions.
    """

    context_x: torch.Tensor  # [C, dim_x] float32 embeddings
    context_y: torch.Tensor  # [C] float32 shares
    target_x: torch.Tensor  # [T, dim_x] float32 embeddings
    target_y: torch.Tensor  # [T] float32 shares
    target_options: torch.Tensor  # [Q] int64 option counts, summing to T; always on the CPU


@dataclass(frozen=True)
class PreferenceSet:
    """All questions one group answered (Q questions, R option rows in all)."""

    group: str
    embeddings: torch.Tensor  # [table rows, dim_x] float16: the survey's whole option table
    questions: Ints  # [Q] index of each question in the survey, ascending
    first_rows: Ints  # [Q] row of each question's first option in `embeddings`
    options: Ints  # [Q] option counts, each >= 2
    shares: Floats  # [R] share of the group that picks each option; sums to 1 per question
    values: Floats | None = None  # [R] ordinal values of the options, for the Wasserstein score

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def starts(self) -> Ints:
        """[Q] position of each question's first option in `shares`."""
        return segment_starts(self.options)

    def table_rows(self, positions: Ints) -> Ints:
        """Rows of the embedding table for the questions at `positions`, flat."""
        return segment_rows(self.first_rows[positions], self.options[positions])

    def share_rows(self, positions: Ints) -> Ints:
        """Indices into `shares` (and `values`) for the questions at `positions`, flat."""
        return segment_rows(self.starts[positions], self.options[positions])

    def rows(
        self, positions: Ints, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [R, dim_x] float32 and shares [R] of the questions at `positions` [n]."""
        # Without `non_blocking` a copy to a GPU first waits for all that was asked of it before.
        table, shares = (
            torch.from_numpy(values).to(device, non_blocking=True)
            for values in (self.table_rows(positions), self.shares[self.share_rows(positions)])
        )
        return _on_device(self.embeddings, torch.device(device))[table].float(), shares

    def task(self, context: Ints, target: Ints, device: torch.device | str = "cpu") -> Task:
        """Gather the questions at positions `context` and `target` (each [n], in 0..Q-1)."""
        context_x, context_y = self.rows(context, device)
        target_x, target_y = self.rows(target, device)
        options = torch.from_numpy(self.options[target])
        return Task(context_x, context_y, target_x, target_y, options)


@lru_cache(maxsize=1)
def _on_device(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The option table on a device: itself on the CPU, copied to a GPU once in a process.

    All groups of a survey share one table.
    """
    return table.to(device)


@dataclass(frozen=True)
class TaskSize:
    """How many questions a training task draws; both bounds of a range are inclusive."""

    context_min: int
    context_max: int
    target_min: int
    target_max: int


def draw_task(candidates: Ints, size: TaskSize, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw disjoint context and target positions from `candidates` (the paper takes U[9, 90] each).

    Where the group has too few questions for the numbers drawn, the context gives way first, down
    to its minimum, then the target.
    """
    context = int(rng.integers(size.context_min, size.context_max, endpoint=True))
    target = int(rng.integers(size.target_min, size.target_max, endpoint=True))
    context = max(size.context_min, min(context, len(candidates) - target))
    target = min(target, len(candidates) - context)
    drawn = rng.permutation(candidates)[: context + target]
    return drawn[:context], drawn[context:]


@dataclass(frozen=True)
class Split:
    """A group's positions 0..Q-1 in three parts, each ascending."""

    train: Ints  # a train group trains on these; the contexts of any group come from these
    held_out: Ints  # a train group's own held-out questions; other groups may train on them
    reserved: Ints  # questions that no group trains on


def reserved_questions(questions: Ints, settings: SplitSettings) -> Bools:
    """Which questions of the survey, given by index [n], no group trains on: a mask [n].

    Each is reserved with probability `reserved_fraction`; the seed and its index decide.
    """
    rng = generator(settings.evaluation_seed, "reserved-questions")
    draws = rng.random(int(questions.max(initial=-1)) + 1)
    mask: Bools = draws[questions] < settings.reserved_fraction
    return mask


def split_questions(preferences: PreferenceSet, role: str, settings: SplitSettings) -> Split:
    """Split a group's questions; depends on the evaluation seed and the group's name alone.

    A train group holds out `held_out_fraction` of what is not reserved, at least one question; an
    evaluation group, on which nobody trains, none.
    """
    mask = reserved_questions(preferences.questions, settings)
    rest, reserved = np.flatnonzero(~mask), np.flatnonzero(mask)
    if role != "train":
        return Split(rest, np.empty(0, np.int64), reserved)
    order = generator(settings.evaluation_seed, "hold-out", preferences.group).permutation(rest)
    count = len(rest) - max(1, round(len(rest) * settings.held_out_fraction))
    return Split(np.sort(order[:count]), np.sort(order[count:]), reserved)
