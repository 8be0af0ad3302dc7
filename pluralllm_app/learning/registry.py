"""The learner that a run's settings ask for; to add one, its module and a line here."""

from pluralllm_app.learning.base import Learner, Strategy
from pluralllm_app.learning.gpo import GPOLearner
from pluralllm_app.settings import Settings


def make_learner(
    settings: Settings, dim_x: int, strategy: Strategy | None = None, device: str = "cpu"
) -> Learner:
    """Make the learner of a run, or one half of it.

    Args:
        settings: of the run.
        dim_x: width of the survey's embeddings.
        strategy: of the server; None for a group's half.
        device: where this half computes.
    """
    return GPOLearner(settings, dim_x, strategy, device)
