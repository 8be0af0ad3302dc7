"""How long training on pooled groups goes on, by the name of its budget.

paper          100 steps, as published (arXiv 2503.09925), where a federated client takes 600
equal-steps    as many optimiser steps as a federated client takes in all its rounds
equal-tasks    as many tasks in all as the federated run trains on
converged      constant learning rate until the train groups' held-out score stops rising
"""

from pluralllm_app.errors import UserError
from pluralllm_app.settings import Settings

BUDGETS = ("paper", "equal-steps", "equal-tasks", "converged")
PAPER_STEPS = 100
PATIENCE = 5  # evaluations without a better score that end `converged`
LONGEST = 3  # times equal-steps, after which `converged` ends in any case


def budget_steps(budget: str, settings: Settings, train_groups: int) -> int:
    """Optimiser steps of a budget; of `converged`, the most it may take.

    Raises:
        UserError: unknown budget, or no group to train on.
    """
    if budget not in BUDGETS:
        raise UserError(f"budget {budget!r} is not one of {', '.join(BUDGETS)}")
    if not train_groups:
        raise UserError("the survey has no train groups: nothing to train on")
    rounds, training = settings.federation.rounds, settings.training
    steps = rounds * training.local_steps
    if budget == "equal-tasks":
        per_round = min(settings.federation.train_groups_per_round or train_groups, train_groups)
        return max(1, round(steps * per_round / train_groups))
    return {"paper": PAPER_STEPS, "equal-steps": steps, "converged": LONGEST * steps}[budget]
