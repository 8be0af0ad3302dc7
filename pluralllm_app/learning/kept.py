"""What a group's half keeps in its process from message to message.

In simulation a process serves many groups. All of them are sent the same, and some of what is made
of it is the same in every round.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.factors.model import Factors
from pluralllm_app.predictors.factors.packing import unpack_factors
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

MOST = 2**27  # bytes of arrays that one `Kept` holds
_PACKED = ("mean", "covariance", "weights", "variances")


class Kept:
    """Arrays by what they were made from: the first ones that fit, to the end of the process."""

    def __init__(self) -> None:
        self._arrays: dict[Hashable, Arrays] = {}
        self._left = MOST

    def get(self, key: Hashable, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of `key`, made where they are not there."""
        if key in self._arrays:
            return self._arrays[key]
        made = make()
        for array in made.values():
            array.setflags(write=False)
        size = sum(array.nbytes for array in made.values())
        if size <= self._left:
            self._left -= size
            self._arrays[key] = made
        return made


@dataclass(frozen=True, eq=False)
class KeptKernel(TextKernel):
    """A kernel that keeps what it gave, for tasks that are the same in every round."""

    kept: Kept = field(default_factory=Kept)

    def covariance(self, a: OptionRows, b: OptionRows) -> Doubles:
        """The projected kernel [A, B] between two sets of whole questions."""
        if a.places is None or b.places is None:
            return super().covariance(a, b)
        key = (a.whole, a.places.tobytes(), b.whole, b.places.tobytes())
        return self.kept.get(key, lambda: {"k": super(KeptKernel, self).covariance(a, b)})["k"]


class Unpacked:
    """Factors and text kernel of what was sent, unpacked anew only where it has changed."""

    def __init__(self) -> None:
        self._factors: tuple[Arrays, Factors] | None = None
        self._kernel: KeptKernel | None = None

    def factors(self, sent: Arrays) -> Factors:
        """The factors in `sent`, not to be written to."""
        packed = {name: sent[name] for name in _PACKED}
        if self._factors is not None:
            before, found = self._factors
            if all(np.array_equal(packed[name], before[name]) for name in _PACKED):
                return found
        self._factors = packed, unpack_factors(sent)
        return self._factors[1]

    def kernel(self, sent: Arrays) -> KeptKernel:
        """The kernel with the landmarks in `sent`: the same one as long as they are the same."""
        landmarks = sent["landmarks"]
        if self._kernel is None or not np.array_equal(self._kernel.landmarks, landmarks):
            self._kernel = KeptKernel(landmarks)
        return self._kernel
