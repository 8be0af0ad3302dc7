"""The learner that a run's settings ask for; to add one, its module and a line here."""

from collections.abc import Callable

from pluralllm_app.learning.base import Learner, Strategy
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.settings import Settings


def make_learner(
    settings: Settings,
    dim_x: int,
    questions: Callable[[], QuestionSet],
    *,
    strategy: Strategy | None = None,
    train_groups: int | None = None,
    device: str = "cpu",
) -> Learner:
    """Make the learner of a run, or one half of it.

    Args:
        settings: of the run.
        dim_x: width of the survey's embeddings.
        questions: all questions of the survey; called if the learner needs them.
        strategy: of the server; None for a group's half.
        train_groups: how many there are; None for a group's half.
        device: where this half computes.
    """
    if settings.federation.predictor == "factors":
        from pluralllm_app.learning.factors import FactorsLearner

        return FactorsLearner(settings, questions, train_groups)
    # Here, since importing torch takes longer than a round of a learner that does without.
    from pluralllm_app.learning.gpo import GPOLearner

    return GPOLearner(settings, dim_x, strategy, device)
