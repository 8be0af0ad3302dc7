"""Observers of a run: they are told of its rounds, and save models, track, or print.

A new observer is a subclass of `Observer` that is appended to `Recording.observers`.
"""

import math
from collections.abc import Callable

from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.records.schema import RoundEntry, Status
from pluralllm_app.records.writer import RunRecord


class Observer:
    """Is told what happens in a run; a subclass overrides the methods that it needs.

    An error that it raises ends the run.
    """

    def trained(self, round_number: int, predictor: Callable[[], ContextPredictor]) -> None:
        """A round of training has ended with a new predictor, which is not scored yet."""

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """A round was recorded; `predictor` is the one that its evaluation scored."""

    def finished(self, status: Status) -> None:
        """The run is about to end."""


class BestModel(Observer):
    """Keeps the predictor with the best score of the train groups as best/."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        # A resumed run may have had a better round before it was cut off.
        best = record.info.best_score
        self._best_score = -math.inf if best is None else best

    def recorded(self, entry: RoundEntry, predictor: Callable[[], ContextPredictor]) -> None:
        """Keep the predictor if it is the best so far."""
        train = entry.evaluation and entry.evaluation.roles["train"]
        # A mean over some of the groups does not compare with a mean over all of them.
        groups = sum(group.role == "train" for group in self._record.roster)
        if not train or train.groups < groups:
            return
        if (score := train.selection_score) > self._best_score:
            self._best_score = score
            self._record.save_model("best", predictor(), entry)
            self._record.update(best_round=entry.round, best_score=score)


class Checkpoints(Observer):
    """Keeps every nth predictor as checkpoints/round-<number>/, and the last of these as model/."""

    def __init__(self, record: RunRecord, every: int) -> None:
        self._record = record
        self._every = every

    def trained(self, round_number: int, predictor: Callable[[], ContextPredictor]) -> None:
        """Keep the predictor where its round is due."""
        if round_number % self._every == 0:
            self._record.save_model(f"checkpoints/round-{round_number:04d}", predictor())
            self._record.save_model("model", predictor())
