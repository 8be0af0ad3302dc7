"""Which runs can sum securely."""

from collections.abc import Collection

from pluralllm_app.core.wording import many
from pluralllm_app.errors import FederationError, SettingsError
from pluralllm_app.learning.base import Strategy
from pluralllm_app.scoring.results import Role
from pluralllm_app.secure_sum.messages import FEWEST_GROUPS, least_threshold
from pluralllm_app.settings import Settings


def check_strategy(settings: Settings, strategy: Strategy) -> None:
    """Raise SettingsError where a strategy needs what secure sums hide."""
    if settings.federation.privacy == "none":
        return
    if strategy.needs_individual_updates or not strategy.weighs:
        raise SettingsError(
            f"strategy = {settings.federation.strategy!r} looks at each group's update, and with "
            "privacy = 'secure-sum' the server sees their weighted sum alone: choose fedavg, "
            "fedprox, fedavgm, fedadam, fedyogi or fedadagrad, or privacy = 'none'"
        )


def checked_threshold(settings: Settings, groups: int) -> int:
    """The threshold of a run with so many train groups.

    Raises:
        FederationError: they are too few for secure sums, or not all of them train in each round,
            or the threshold is too low, or above their number.
    """
    asked, sampled = (
        settings.federation.secure_threshold,
        settings.federation.train_groups_per_round,
    )
    if groups < FEWEST_GROUPS:
        raise FederationError(
            f"the run has {many(groups, 'train group')}, and a sum over fewer than {FEWEST_GROUPS} "
            "hides nothing: add groups, or set privacy = 'none' if the server may see each one's "
            "answers"
        )
    if 0 < sampled < groups:
        raise FederationError(
            f"train-groups-per-round = {sampled} of {many(groups, 'train group')}: with privacy = "
            "'secure-sum' all of them train in each round, since the sums of changing groups tell "
            "of single ones. Set train-groups-per-round = 0"
        )
    least = least_threshold(groups)
    if asked and not least <= asked <= groups:
        raise FederationError(
            f"secure-threshold = {asked} does not go with {many(groups, 'train group')}: set it to "
            f"{least} to {groups}, or to 0 for {least}"
        )
    return asked or least


def scores_threshold(role: Role, groups: int) -> int:
    """The threshold of the sums of the scores of so many groups of a role.

    Raises:
        FederationError: they are too few.
    """
    if groups < FEWEST_GROUPS:
        raise FederationError(
            f"scores = 'mean' with {many(groups, f'{role} group')}: a sum over fewer than "
            f"{FEWEST_GROUPS} hides no score. Add {role} groups, leave them out, or set "
            "scores = 'per-group'"
        )
    return least_threshold(groups)


def check_alike(before: Collection[str], now: Collection[str]) -> None:
    """Raise FederationError where the next of a run's sums that are alike lacks a group.

    Args:
        before: groups of the sums so far, which the next one is over as well; none at first.
        now: groups that are left for it.
    """
    if missing := sorted({*before} - {*now}):
        raise FederationError(
            f"{', '.join(missing)} cannot be missing: sums of factors, and of scores, have to be "
            "over the same groups in all rounds, since a difference would tell what these alone "
            "added. Resume the run once they are back (with grace-period it waits for nodes "
            "that went away), or begin another without them"
        )
