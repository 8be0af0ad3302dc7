"""TRL's own GRPOTrainer trains with the rewards."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.rewards import GroupReward, SeveralGroups, rendered
from pluralllm_app.use.group import Group
from tests.conftest import ROOT
from tests.support.used import YES_NO

pytestmark = pytest.mark.slow
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture
def tiny_policy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The examples' module that makes a policy."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import tiny_policy

    yield tiny_policy
    del sys.modules["tiny_policy"]


def train(
    policy: Any, tokenizer: Any, rewards: list[Any], rows: list[dict[str, Any]], out: Path
) -> list[dict[str, float]]:
    """Train for two steps; returns what was logged."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    settings = GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        max_steps=2,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=2,
        learning_rate=1e-3,
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=rewards,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer.state.log_history


def test_two_groups_in_one_reward(
    north: Group, south: Group, tiny_policy: Any, tmp_path: Path
) -> None:
    """By columns of the data; what is logged are this reward's own sums."""
    policy, tokenizer = tiny_policy.make_policy(YES_NO, seed=0, steps=30)
    before = tiny_policy.answer_shares(policy, tokenizer, YES_NO)
    reward = SeveralGroups([GroupReward(north), GroupReward(south)], "adaptive-alpha")
    rows = [{"prompt": rendered(each), "question_id": each.id} for each in YES_NO]
    logged = train(policy, tokenizer, [reward], rows, tmp_path)[:2]
    assert [row["groups/North/mean"] for row in logged] == pytest.approx(
        [means[0] for means in reward.history.calls]
    )
    assert logged[0]["groups/North/alpha"] == 0.5
    assert logged[1]["groups/North/alpha"] != 0.5
    assert logged[0]["rewards/adaptive-alpha of 2/mean"] == pytest.approx(logged[0]["reward"])
    assert 0 <= logged[0]["rewards/North/unscored"] < 0.9
    assert tiny_policy.answer_shares(policy, tokenizer, YES_NO) != before


def test_conversations_and_questions_in_the_prompt(
    north: Group, tiny_policy: Any, tmp_path: Path
) -> None:
    """Messages in place of texts, no columns, and a reward for what cannot be read."""
    policy, tokenizer = tiny_policy.make_policy(YES_NO, seed=0, steps=30)
    tokenizer.chat_template = CHAT
    reward = GroupReward(north, "distribution", unread=0.0)
    rows = [{"prompt": [{"role": "user", "content": rendered(each)}]} for each in YES_NO]
    logged = train(policy, tokenizer, [reward], rows, tmp_path)
    assert reward.counts.total() == 32
    scored = [1 - row["rewards/North/unscored"] for row in logged[:2]]
    assert sum(scored) / 2 == pytest.approx(reward.counts["scored"] / 32)
    assert logged[0]["rewards/North/mean"] > 0
