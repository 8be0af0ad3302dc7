"""`compute_score` as verl calls it, one completion at a time.

Written against `verl.experimental.reward_loop` and `verl.trainer.ppo.reward` of verl 0.9.1:

    reward.custom_reward_function.path=pkg://pluralllm_app.rewards.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.model=runs/first
    +reward.custom_reward_function.reward_kwargs.groups='[{description: People in Japan}]'
    +reward.custom_reward_function.reward_kwargs.unread=0
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards.group_reward import GroupReward
from pluralllm_app.rewards.rollouts import COLUMNS
from pluralllm_app.rewards.several import SeveralGroups
from pluralllm_app.use.predictor import Predictor

_ONE_AT_A_TIME = Lock()  # verl calls from several threads, and a model is to be loaded once


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    model: str,
    groups: Sequence[Mapping[str, Any]],
    unread: float,
    rule: str = "mean",
    embedder: str | None = None,
    **others: Any,
) -> dict[str, float]:
    """Score a completion by the predicted share of the option that it names.

    What the prompt asks is said by `question_id`, or `question` and `options`, in `extra_info`;
    without these, by `ground_truth`, which is the id of a question.

    Args:
        data_source: plays no part.
        solution_str: the completion.
        ground_truth: see above.
        extra_info: of the row of the data.
        model: see `Predictor.from_pretrained`; loaded once in each process.
        groups: what is known of each: `answers`, the path of a table; `description`; `name`.
        unread: the reward of a completion that names no option or several; verl takes no None.
        rule: how groups' rewards are put together; each process scores alone, so that none that
            has a history can be used.
        embedder: see `Predictor.from_pretrained`.
        others: what verl adds.

    Returns:
        `score`, and for verl's metrics `read`: 1 where the completion names one option, else 0.

    Raises:
        AnswersError: see `GroupReward`; or the rule has a history.
        PredictorError: see `GroupReward`.
    """
    if rule == "adaptive-alpha":
        raise AnswersError(
            "adaptive-alpha weighs groups by a history, and verl scores in several processes that "
            "have none in common: give mean, min, max or nash as rule"
        )
    known = json.dumps([dict(each) for each in groups], sort_keys=True, default=str)
    said = extra_info or {}
    columns: dict[str, Any] = {name: [said[name]] for name in COLUMNS if said.get(name) is not None}
    if not columns.keys() & {"question_id", "question"}:
        columns["question_id"] = [str(ground_truth)]
    with _ONE_AT_A_TIME:
        reward = _reward(model, known, rule, embedder)
        (score,) = reward([""], [solution_str], **columns)
        reward.history.calls.clear()  # which no rule looks at here
    return {"score": float(unread) if score is None else score, "read": float(score is not None)}


@lru_cache(maxsize=8)
def _reward(model: str, known: str, rule: str, embedder: str | None) -> SeveralGroups:
    predictor = Predictor.from_pretrained(model, embedder=embedder)
    rewards = []
    for place, each in enumerate(json.loads(known), 1):
        name = each.get("name") or each.get("description") or f"group {place}"
        if unknown := each.keys() - {"answers", "description", "name"}:
            raise AnswersError(
                f"group {place} has {sorted(unknown)[0]!r}: give answers, description and name"
            )
        group = predictor.group(each.get("answers"), each.get("description"), name)
        rewards.append(GroupReward(group))
    return SeveralGroups(rewards, rule)
