"""What groups are predicted to prefer as a reward for language models.

Docs: docs/alignment.md. Importing this imports no torch.
"""

from pluralllm_app.rewards.aggregation import AdaptiveAlpha, Max, Mean, Min, Nash
from pluralllm_app.rewards.group_reward import Form, GroupReward
from pluralllm_app.rewards.history import History
from pluralllm_app.rewards.several import SeveralGroups
from pluralllm_app.use.prompts import rendered

__all__ = [
    "AdaptiveAlpha",
    "Form",
    "GroupReward",
    "History",
    "Max",
    "Mean",
    "Min",
    "Nash",
    "SeveralGroups",
    "rendered",
]
