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
        raise SettingsError("noise = 'groups' is not built yet: set noise = 'none'")
    if (noise == "none") == (epsilon > 0):
        raise SettingsError(
            f"epsilon = {epsilon:g} does not go with noise = {noise!r}: set "
            "noise = 'respondents' and epsilon above 0, or noise = 'none' and epsilon = 0"
        )
