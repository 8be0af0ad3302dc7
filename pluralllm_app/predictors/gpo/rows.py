"""Rows as the network reads them: embeddings and shares of questions, gathered on a device.

Vectors of length 1, as many sentence embedders give, hold numbers of about 1 / sqrt(dim_x), too
small beside shares for a network to learn from at usual rates. Where a survey's vectors are no
longer than 1, they are scaled so that their numbers are about 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pluralllm_app.core.segments import Halves
from pluralllm_app.preferences import QuestionSet, Task

UNIT = 1e-3  # how far from 1 a length of 1 may be in half precision
MEASURED = 1000  # rows whose median length is that of a table, evenly spread, about

# The option table that was used last, its copy on the device it was used on, and what to multiply
# it by.
_last_table: tuple[Halves, torch.device, Tensor, float] | None = None


@dataclass(frozen=True)
class Batch:
    """The rows of n tasks: context and target of the first task, then of the second, and so on.

    There are N rows in all, T of them of the targets' Q questions.
    """

    x: Tensor  # [N, dim_x] float32 embeddings
    y: Tensor  # [N] float32 shares, 0 for the target rows
    context: list[int]  # [n] context rows of each task
    target: list[int]  # [n] target rows of each task
    options: Tensor  # [Q] int64 option counts of the target questions; always on the CPU
    shares: Tensor  # [T] float32 true shares of the target rows

    @classmethod
    def gather(cls, tasks: Sequence[Task], device: torch.device) -> "Batch":
        """Gather the rows of tasks; raises ValueError where they are of different surveys."""
        sets = [part for task in tasks for part in (task.context, task.target)]
        given = [
            shares
            for task in tasks
            for shares in (task.context.shares, np.zeros_like(task.target.shares))
        ]
        return cls(
            x=embeddings_on(device, sets),
            y=on_device(device, np.concatenate(given)),
            context=[len(task.context.shares) for task in tasks],
            target=[len(task.target.shares) for task in tasks],
            options=torch.from_numpy(np.concatenate([task.target.options for task in tasks])),
            shares=on_device(device, np.concatenate([task.target.shares for task in tasks])),
        )


def embeddings_on(
    device: torch.device, sets: Sequence[QuestionSet], scale: float | None = None
) -> Tensor:
    """Embeddings [R, dim_x] float32, scaled, of the options of all questions of `sets`.

    Args:
        device: where to.
        sets: of one survey.
        scale: what to multiply them by; that of their table if not given.

    Raises:
        ValueError: see `table_of`.
    """
    table = table_of(sets)
    rows = on_device(device, np.concatenate([questions.rows for questions in sets]))
    on_it, usual = _table_on(device, table)
    scale = usual if scale is None else scale
    found = on_it[rows].float()
    return found if scale == 1 else found * scale


def table_of(sets: Sequence[QuestionSet]) -> Halves:
    """The option table that all `sets` refer to.

    Raises:
        ValueError: the questions are of different surveys, or of one that was opened twice.
    """
    table = sets[0].embeddings
    if any(questions.embeddings is not table for questions in sets):
        raise ValueError("context and target must be questions of one opened survey")
    return table


def on_device(device: torch.device, values: NDArray[Any]) -> Tensor:
    """A tensor of `values` on a device."""
    # Without `non_blocking` a copy to a GPU first waits for all that was asked of it before.
    return torch.from_numpy(values).to(device, non_blocking=True)


def _table_on(device: torch.device, table: Halves) -> tuple[Tensor, float]:
    """The option table on a device, itself on the CPU, copied to a GPU once; and its factor.

    All groups of a survey share one table, so that a process keeps one copy.
    """
    global _last_table
    if _last_table is None or _last_table[0] is not table or _last_table[1] != device:
        _last_table = table, device, torch.from_numpy(table).to(device), table_scale(table)
    return _last_table[2:]


def table_scale(table: Halves) -> float:
    """What to multiply an option table by."""
    some = table[:: max(1, len(table) // MEASURED)].astype(np.float32)
    length = float(np.median(np.linalg.norm(some, axis=1))) if len(some) else 0.0
    return math.sqrt(table.shape[1]) / length if 0 < length <= 1 + UNIT else 1.0
