"""Which settings of privacy go together: a run whose promise would be false does not begin."""

from typing import TYPE_CHECKING

from pluralllm_app.errors import SettingsError

if TYPE_CHECKING:
    from pluralllm_app.settings import Settings


def check_privacy(settings: "Settings") -> None:
    """Raise SettingsError where settings of privacy do not go together."""
    federation = settings.federation
    if federation.scores == "mean" and federation.privacy != "secure-sum":
        raise SettingsError(
            "scores = 'mean' is for privacy = 'secure-sum', by which scores are summed: without it "
            "the server sees each group's update, which tells more than its scores. Set privacy = "
            "'secure-sum', or scores = 'per-group'"
        )
    if federation.noise == "groups":
        raise SettingsError("noise = 'groups' is not built yet: set noise = 'none'")
    if (federation.noise == "none") == (federation.epsilon > 0):
        raise SettingsError(
            f"epsilon = {federation.epsilon:g} does not go with noise = {federation.noise!r}: set "
            "noise = 'respondents' and epsilon above 0, or noise = 'none' and epsilon = 0"
        )
