"""What a federation runs: a learner, of which each group does one half and the server the other.

In a round the server sends each group the shared part of its state; each group answers with a
contribution; the server combines the contributions into the next state. A learner whose state is
the weights of a network contributes trained weights; one that learns by sums contributes sums.
Nothing here knows how contributions travel.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from pluralllm_app.predictors.base import Arrays, ContextPredictor
from pluralllm_app.preferences import PreferenceSet

MEMORIES = "clients"  # the directory, in that of a run, where a simulation's groups have theirs
JS_DIVERGENCE = "js-divergence"  # among the metrics of a contribution
PROXIMAL_MU = "proximal-mu"  # of FedProx, among the options of a request


@dataclass(frozen=True)
class State:
    """What the server knows after a round."""

    sent: Arrays  # what every group is sent
    kept: Arrays = field(default_factory=dict)  # what the server needs besides, e.g. its momentum


@dataclass(frozen=True)
class Request:
    """What the server asks of a group in a round."""

    round: int  # from 1
    evaluate: bool  # score the state that was sent as well, before learning from it
    experiment: str  # 32 hexadecimal digits that name the run, also where it is resumed
    counted: int  # the group's last round whose contribution counted; 0: none did
    options: Mapping[str, float] = field(default_factory=dict)  # of the strategy, for the groups
    draws: int | None = None
    """Keys what the group draws. The group sets it, where nobody else may know; None: the run's
    seed does."""


@dataclass(frozen=True)
class Contribution:
    """What one group answers in a round."""

    arrays: Arrays
    weight: float  # at a group the questions it learned from; at the server how much it counts
    metrics: Mapping[str, float]  # numbers for the record, see `Form.metrics`


Contributions = Iterable[Contribution]
"""Those of a round. They come one by one, in the order of the groups' names, and can be gone
through once."""


@dataclass(frozen=True)
class ArrayForm:
    """Type and shape of an array, and the bounds of its numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    least: float = -math.inf
    most: float = math.inf
    room: float | None = None
    """What absolute values a secure sum has room for; None: as `least` and `most` say."""

    @property
    def largest(self) -> float:
        """The largest absolute value for which a secure sum has room."""
        return max(abs(self.least), abs(self.most)) if self.room is None else self.room


@dataclass(frozen=True)
class Form:
    """What every contribution in a round looks like, so that the server can check each of them."""

    arrays: Mapping[str, ArrayForm]
    metrics: Mapping[str, float]  # the least value that each may have
    rule: Callable[[Arrays], None] | None = None
    """Raises ValueError unless the arrays, each of its form, also go together."""
    weighs: bool = False
    """Whether a contribution counts for as much as its weight says. Its arrays then are what became
    of those that were sent, of the same names. At a group: unless the strategy does without."""

    def check(self, contribution: Contribution) -> None:
        """Raise ValueError, saying what is wrong, unless a contribution has this form."""
        self.check_arrays(contribution.arrays)
        if self.rule:
            self.rule(contribution.arrays)
        for name, value in contribution.metrics.items():
            if value < self.metrics[name]:
                raise ValueError(f"its {name} is below {self.metrics[name]:g}")

    def check_arrays(self, arrays: Arrays) -> None:
        """Raise ValueError, saying what is wrong, unless arrays have this form and are finite."""
        if set(arrays) != set(self.arrays):
            raise ValueError(f"its arrays are not {', '.join(self.arrays)}")
        for name, array in arrays.items():
            form = self.arrays[name]
            if array.dtype != form.dtype or array.shape != form.shape:
                raise ValueError(
                    f"its {name} are {array.dtype} {array.shape}, not {form.dtype} {form.shape}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"its {name} are not all finite")
            low = form.least > -math.inf and (array < form.least).any()
            if low or (form.most < math.inf and (array > form.most).any()):
                raise ValueError(f"its {name} are not within {form.least:g} and {form.most:g}")


class Learner(Protocol):
    """How a federation learns a predictor."""

    def form(self, sent: Arrays) -> Form:
        """What contributions to a state look like whose shared part is `sent`."""

    @property
    def needs_individual_updates(self) -> bool:
        """Whether `combine` looks at single contributions, and not only at their weighted sum."""

    def contribute(
        self, sent: Arrays, preferences: PreferenceSet, request: Request, memory: Path
    ) -> Contribution:
        """A group's half: learn from its answers.

        Args:
            sent: what the server sent.
            preferences: the group's answers.
            request: what the server asks.
            memory: a directory of the group's own, kept from round to round; it need not be there.
        """

    def initial_state(self) -> State:
        """The server's half: the state that the first round starts from."""

    def count_forms(self, sent: Arrays) -> Mapping[str, ArrayForm]:
        """What is summed before the first round, where sums are secure; {} if nothing is."""

    def counts(self, sent: Arrays, preferences: PreferenceSet) -> Arrays:
        """A group's half: its part of that."""

    def counted(self, state: State, totals: Arrays) -> State:
        """The server's half: the state that knows the sums of `counts` over groups."""

    def options(self) -> Mapping[str, float]:
        """The server's half: what goes to the groups as `Request.options`."""

    def combine(self, round_number: int, state: State, contributions: Contributions) -> State:
        """The server's half: the next state.

        Args:
            round_number: from 1.
            state: what the groups started from.
            contributions: checked against `form`.

        Raises:
            FederationError: no usable state comes out of them.
        """

    def settled(self, state: State) -> bool:
        """The server's half: whether further rounds would no longer make it better."""

    def predictor(self, sent: Arrays) -> ContextPredictor:
        """What a state predicts; it changes with the next call."""

    def work(self, sent: Arrays, groups: int) -> tuple[int, int]:
        """What it took so many groups to learn from `sent`: steps, and tasks of all groups."""


@dataclass(frozen=True)
class Strategy(ABC):
    """How the server turns a round's contributions into new arrays.

    A strategy is a frozen dataclass, and its fields are its options. It holds nothing from round to
    round: what it carries, such as a momentum, is given to `aggregate` and returned by it, so that
    it is saved with the run.
    """

    needs_individual_updates: ClassVar[bool]
    """Whether it looks at single updates, and not only at their weighted sum."""
    weighs: ClassVar[bool] = True
    """Whether its result depends on the updates' weights."""

    @property
    def least_updates(self) -> int:
        """The fewest updates of a round for which it is defined."""
        return 1

    @property
    def group_options(self) -> Mapping[str, float]:
        """Numbers that the groups need for their half of it."""
        return {}

    @abstractmethod
    def aggregate(
        self, round_number: int, current: Arrays, carried: Arrays, contributions: Contributions
    ) -> tuple[Arrays, Arrays]:
        """The new arrays, and what to carry to the next round.

        Args:
            round_number: from 1.
            current: what the groups started from.
            carried: what the last round returned; {} in the first.
            contributions: the groups' updates. Where they turn out to be fewer than the quorum,
                the result is not used.
        """
