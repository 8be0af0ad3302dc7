"""How a predictor did on the groups of a role, from sums over them: no group's score is known.

A group adds the mean s of its questions' scores, and s^2. Of so many groups these give the mean,
the coefficient of variation and the fairness index, and neither the worst group nor the fairness
index per question. The mean over pairs of group and question is left out on purpose: with the
numbers of questions, which are known, it would be one more equation for the groups' scores, and
three equations tell those of three groups. For the same reason s is, where questions are reserved,
the mean of a group's mean over these and of that over others, each of which is summed anyway.
"""

import math
from collections.abc import Mapping

from pluralllm_app.errors import FederationError
from pluralllm_app.preferences import reserved_questions
from pluralllm_app.scoring.metrics import GroupScores
from pluralllm_app.scoring.results import RoleSummary
from pluralllm_app.settings import SplitSettings

SCORE, SQUARE, SEEN, RESERVED = "score", "square", "seen", "reserved"


def summed(split: SplitSettings) -> list[str]:
    """What is summed of each group: numbers from 0 to 1, by name."""
    return [SEEN, RESERVED, SQUARE] if split.reserved_fraction else [SCORE, SQUARE]


def summands(group: GroupScores, split: SplitSettings) -> dict[str, float]:
    """What a group adds, see `summed`.

    Raises:
        FederationError: it was scored on no reserved question, or on reserved ones alone.
    """
    if not split.reserved_fraction:
        return {SCORE: group.mean, SQUARE: group.mean**2}
    reserved = reserved_questions(group.questions, split)
    if reserved.all() or not reserved.any():
        raise FederationError(
            "this group is not scored on both reserved questions and others, which scores = "
            "'mean' sums over all groups: set reserved-fraction = 0 or scores = 'per-group'"
        )
    seen, kept = (float(group.scores[which].mean()) for which in (~reserved, reserved))
    return {SEEN: seen, RESERVED: kept, SQUARE: ((seen + kept) / 2) ** 2}


def summary_of_sums(sums: Mapping[str, float], groups: int) -> RoleSummary:
    """Alignment and fairness over so many groups.

    Args:
        sums: over these groups, of what `summands` gives.
        groups: how many they are.
    """
    means = {name: total / groups for name, total in sums.items()}
    mean = means[SCORE] if SCORE in means else (means[SEEN] + means[RESERVED]) / 2
    # Rounding of the sums can make the variance of equal scores negative.
    deviation = math.sqrt(max(means[SQUARE] - mean**2, 0.0))
    cov = deviation / mean if mean else 0.0
    return RoleSummary(
        groups=groups,
        mean=mean,
        pooled=None,
        worst=None,
        worst_group=None,
        gap=None,
        cov=cov,
        fi=1.0 / (1.0 + cov**2),
        fi_per_question=None,
        mean_seen=means.get(SEEN),
        mean_reserved=means.get(RESERVED),
    )
