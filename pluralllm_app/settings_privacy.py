"""Which settings of privacy go together: a run whose promise would be false does not begin."""

from collections.abc import Mapping
from typing import Any

from pluralllm_app.errors import SettingsError


def check_privacy(federation: Mapping[str, Any]) -> None:
    """Raise SettingsError where settings of privacy do not go together.

    Args:
        federation: fields of `settings.FederationSettings`, by name.
    """
    noise, epsilon = federation["noise"], federation["epsilon"]
    if federation["scores"] == "mean" and federation["privacy"] != "secure-sum":
        raise SettingsError(
            "scores = 'mean' is for privacy = 'secure-sum', by which scores are summed: without it "
            "the server sees each group's update, which tells more than its scores. Set privacy = "
            "'secure-sum', or scores = 'per-group'"
        )
    if noise == "groups":
        _check_groups(federation)
    elif federation["update_norm"]:
        raise SettingsError(
            f"update-norm = {federation['update_norm']:g} is for noise = 'groups': set it to 0"
        )
    if (noise == "none") == (epsilon > 0):
        raise SettingsError(
            f"epsilon = {epsilon:g} does not go with noise = {noise!r}: set "
            "noise = 'respondents' or 'groups' and epsilon above 0, or noise = 'none' and epsilon "
            "= 0"
        )


def _check_groups(federation: Mapping[str, Any]) -> None:
    """Refuse what would make the promise of noise on groups' updates false."""
    needed = (
        (
            *("privacy", "secure-sum"),
            "noise is added by the groups, in shares that protect the sum alone",
        ),
        (
            *("purpose", "train"),
            "sums of answers for rewards have no noise",
        ),
        (
            *("predictor", "gpo"),
            "one group can change sums of factors without bound, so that no noise hides it; "
            "noise = 'respondents' goes with them",
        ),
        (
            *("prior", "none"),
            "one group can change sums of factors without bound, so that no noise hides it; "
            "noise = 'respondents' goes with them",
        ),
        (
            *("weighting", "uniform"),
            "an update that counts for its group's questions would move the sum by more than its "
            "norm",
        ),
    )
    for key, value, why in needed:
        if federation[key] != value:
            raise SettingsError(
                f"{key} = {federation[key]!r} does not go with noise = 'groups': {why}. Set {key} "
                f"= {value!r}"
            )
    if not federation["update_norm"]:
        raise SettingsError(
            "noise = 'groups' needs update-norm, the L2 norm that each group's update is clipped "
            "to: without, one group could move the sum by any amount. The median norm of updates "
            "is a good value, such as 1"
        )
