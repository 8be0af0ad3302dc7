"""A learner's contributions as vectors that can be summed, and their sum as a contribution.

Where contributions are weighted, as trained weights are, a group sends its weight times what its
arrays changed by, and the server divides by the weights of those that are left: all groups know
these weights, since each has signed its own and shares are sealed for groups that were shown the
same. Else it sends its arrays. The metrics are summed as well, so that no loss of a single group
leaves it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.weight_cap import largest_weight
from pluralllm_app.learning.base import ArrayForm, Contribution, Form
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.secure_sum.fixed_point import Layout, Words

MASKED = "masked"  # the one array of a contribution on its way
LARGEST_METRIC = 2.0**20  # of a loss, in nats
_METRIC = "metric "


def masked_form(length: int) -> Form:
    """What a contribution looks like on its way."""
    return Form({MASKED: ArrayForm(np.dtype(np.uint64), (length,))}, {})


@dataclass(frozen=True)
class Summands:
    """How contributions of a form are summed over a cohort."""

    layout: Layout
    form: Form
    weights: Mapping[str, float]  # of all groups of the cohort, capped
    noise: GroupNoise | None = None

    @classmethod
    def of(
        cls, form: Form, weights: Mapping[str, float], cap: float, noise: GroupNoise | None = None
    ) -> "Summands":
        """Sums of contributions of a form.

        Args:
            form: of a contribution, before it is masked.
            weights: of all groups of the cohort.
            cap: largest share of one.
            noise: for which updates are clipped.

        Raises:
            FederationError: what was sent leaves a sum too coarse to be used.
        """
        most = largest_weight(list(weights.values()), cap)
        capped = {name: min(weight, most) for name, weight in weights.items()}
        factor = max(capped.values()) if form.weighs else 1.0
        shapes: dict[str, tuple[int, ...]] = {
            name: array.shape for name, array in form.arrays.items()
        }
        room = {name: factor * array.largest for name, array in form.arrays.items()}
        shapes |= {_METRIC + name: (1,) for name in form.metrics}
        room |= {_METRIC + name: LARGEST_METRIC for name in form.metrics}
        try:
            layout = Layout.of(shapes, room, len(weights))
        except ValueError as error:
            raise FederationError(f"what the server sent cannot be summed over: {error}") from error
        return cls(layout, form, capped, noise)

    def vector(self, group: str, sent: Arrays, contribution: Contribution) -> Words:
        """What a group adds.

        Args:
            group: its name.
            sent: what it was sent.
            contribution: before it is masked.

        Raises:
            FederationError: it has other arrays than the server expects, or a number too large.
        """
        given = contribution.arrays
        if self.noise:  # no refusal tells that an update is not finite: it counts as none
            given = {name: x if np.isfinite(x).all() else sent[name] for name, x in given.items()}
        try:
            self.form.check_arrays(given)
        except ValueError as error:
            raise FederationError(f"this group's contribution cannot be summed: {error}") from error
        arrays: dict[str, np.typing.NDArray[np.float64]] = {}
        for name, array in given.items():
            numbers = array.astype(np.float64)
            if self.form.weighs:
                numbers = self.weights[group] * (numbers - sent[name])
            if self.noise:
                numbers = self.noise.clipped(numbers)
            arrays[name] = numbers
        metrics = {
            _METRIC + name: np.array([value]) for name, value in contribution.metrics.items()
        }
        return self.layout.encode(arrays | metrics)

    def contribution(self, sent: Arrays, total: Words, survivors: tuple[str, ...]) -> Contribution:
        """The sum as one contribution: a mean of those with weights, whose weight is theirs.

        Its metrics are means over groups.

        Args:
            sent: what the groups were sent.
            total: of the survivors' vectors.
            survivors: whose vectors are in it.

        Raises:
            FederationError: their masks do not cancel.
        """
        sums = self.layout.decode(total, len(survivors))
        weight = sum(self.weights[name] for name in survivors)
        metrics = {
            name: float(sums.pop(_METRIC + name)[0] / len(survivors)) for name in self.form.metrics
        }
        if self.form.weighs:
            return Contribution(
                {name: sent[name] + array / weight for name, array in sums.items()}, 1.0, metrics
            )
        return Contribution(sums, weight, metrics)
