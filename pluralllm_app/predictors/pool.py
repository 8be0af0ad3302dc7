"""The train groups' raw answers in one place, for baselines that pool them.

Federated training avoids exactly this. A group that is itself among the train groups is left out
when it is predicted, so that it counts as a new group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from pluralllm_app.core.segments import Bools, Doubles, Ints
from pluralllm_app.predictors.base import Arrays, Baseline, check_arrays
from pluralllm_app.predictors.uniform import uniform_shares
from pluralllm_app.preferences import PreferenceSet, QuestionSet


@dataclass(frozen=True, eq=False)
class Pool:
    """The answers of G train groups, over all R rows of a survey's option table."""

    groups: tuple[str, ...]  # [G]
    shares: Doubles  # [G, R], 0 where not answered
    uniform: Doubles  # [R] 1 / option count of the question, 0 where no group answered it
    answered: Bools  # [G, R]

    @classmethod
    def gather(cls, train: Sequence[PreferenceSet]) -> Self:
        """Put the answers of the groups of `train` (at least one) together."""
        shares = np.zeros((len(train), len(train[0].embeddings)))
        uniform = np.zeros(shares.shape[1])
        answered = np.zeros(shares.shape, np.bool_)
        for index, preferences in enumerate(train):
            rows = preferences.rows
            shares[index, rows] = preferences.shares
            uniform[rows] = uniform_shares(preferences.options)
            answered[index, rows] = True
        return cls(tuple(preferences.group for preferences in train), shares, uniform, answered)

    def others(self, group: str) -> Bools:
        """[G] which train groups may serve to predict `group`: all but itself."""
        return np.array([name != group for name in self.groups])

    def rows(self, questions: QuestionSet) -> Ints:
        """[R'] which of the R rows are the options of some questions.

        Raises:
            ValueError: the questions are of another survey.
        """
        if len(questions.embeddings) != self.shares.shape[1]:
            raise ValueError(
                f"the predictor is of a survey with {self.shares.shape[1]} options, the questions "
                f"are of one with {len(questions.embeddings)}"
            )
        return questions.rows


class PoolingBaseline(Baseline):
    """A baseline that needs the train groups' answers pooled, and is saved with them."""

    pools_answers: ClassVar[bool] = True

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    @classmethod
    def fit(cls, train: Sequence[PreferenceSet]) -> Self:
        """Pool the answers of `train`, at least one group."""
        return cls(Pool.gather(train))

    def config(self) -> dict[str, Any]:
        """The names of the groups, and how many options the survey has."""
        return {"groups": list(self.pool.groups), "options": len(self.pool.uniform)}

    def arrays(self) -> Arrays:
        """The answers of the groups, see `Pool`."""
        pool = self.pool
        return {"shares": pool.shares, "uniform": pool.uniform, "answered": pool.answered}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Arrays) -> Self:
        """Make the baseline of these groups and answers."""
        groups, options = tuple(config["groups"]), config["options"]
        whole = (len(groups), options)
        check_arrays(arrays, {"shares": whole, "uniform": (options,), "answered": whole})
        return cls(Pool(groups=groups, **arrays))
