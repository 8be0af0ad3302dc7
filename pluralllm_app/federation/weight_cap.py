"""No group's update is more than a part of a weighted mean, however many questions it has.

The one place where shares are bounded: between the updates that arrive and the strategy. The group
whose share would be above `weight-cap` gets the cap, and the others divide the rest in proportion
to their weights. With secure sums it bounds the weights that groups have signed; whether a masked
vector keeps to them nobody sees. With fewer than 3 updates nothing is capped, and where the cap is
below 1 / n of n updates, it is 1 / n: then all count alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pluralllm_app.learning.base import Contribution, Contributions

FEWEST = 3
_ROUNDING = 1 + 1e-12  # equal weights are not above the cap by rounding


def capped(
    contributions: Contributions,
    chosen: Sequence[float],
    cap: float,
    note: Callable[[float, float], None] = lambda before, after: None,
) -> Contributions:
    """Contributions with weights of which none has more than its share.

    Where no set of replies can break the cap, they are passed on as they come, so that they are
    added up in their order. Else the 1 / cap largest are held back and come last: their weights
    depend on who replies.

    Args:
        contributions: of a round; they come one by one.
        chosen: weights of all groups that were asked, of which some may not reply.
        cap: largest share of one, above 0.
        note: told the largest weight and what became of it, where it was lowered.
    """
    if not _may_bind(chosen, cap):
        yield from contributions
        return
    held: list[Contribution] = []
    weights: list[float] = []
    for contribution in contributions:
        weights.append(contribution.weight)
        held.append(contribution)
        if len(held) > 1 / cap:
            yield held.pop(min(range(len(held)), key=lambda place: held[place].weight))
    most = largest_weight(weights, cap)
    if weights and max(weights) > most:
        note(max(weights), most)
    for contribution in held:
        yield replace(contribution, weight=min(contribution.weight, most))


def largest_weight(weights: Sequence[float], cap: float) -> float:
    """What larger weights have to be lowered to, so that no share of the sum is above the cap."""
    count = len(weights)
    if count < FEWEST:
        return max(weights, default=0.0)
    share = max(cap, 1 / count)
    sizes = sorted(weights, reverse=True)
    most = sizes[0]
    for lowered in range(count):  # how many of the largest are lowered
        rest = sum(sizes[lowered:])
        most = min(most, share * rest / (1 - lowered * share))
        if sizes[lowered] <= most * _ROUNDING:
            break
    return most if most * _ROUNDING < sizes[0] else sizes[0]


def _may_bind(weights: Sequence[float], cap: float) -> bool:
    """Whether the cap lowers a weight of any 3 or more of these."""
    *others, largest = sorted(weights)
    for count in range(FEWEST, len(weights) + 1):
        total = largest + sum(others[: count - 1])
        if largest > max(cap, 1 / count) * total * _ROUNDING:
            return True
    return False
