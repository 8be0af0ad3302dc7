"""The group's half of a network on top of factors."""

from pathlib import Path

import numpy as np

from pluralllm_app.federation.strategies import make_strategy
from pluralllm_app.learning.base import Learner, Request
from pluralllm_app.learning.gpo import WEIGHTS
from pluralllm_app.learning.registry import Given, make_learner
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN


def test_a_group_trains_on_the_factors_that_were_sent(
    config: dict[str, Scalar], tiny_survey: PreparedSurvey, tmp_path: Path
) -> None:
    """Not on those of an earlier message of the run, of which a process keeps some."""
    settings = Settings.from_config(config | {"prior": "factors"})
    groups = [tiny_survey.preferences(name) for name in TRAIN]

    def learner() -> Learner:
        strategy = make_strategy(settings)
        questions = tiny_survey.all_questions
        return make_learner(Given(settings, tiny_survey.dim, questions, strategy, len(TRAIN)))

    def asked(number: int) -> Request:
        return Request(number, False, "0" * 32, number - 1, server.options())

    server = learner()
    state = server.initial_state()
    given = [server.contribute(state.sent, own, asked(1), tmp_path / own.group) for own in groups]
    sent = server.combine(1, state, given).sent
    other = {**sent, "factors.mean": 2 * sent["factors.mean"]}
    first, *_ = groups

    def trained(half: Learner, received: dict[str, np.ndarray]) -> np.ndarray:
        return half.contribute(received, first, asked(2), tmp_path / first.group).arrays[WEIGHTS]

    one = learner()
    assert (trained(one, sent) != trained(one, other)).any()
    assert (trained(one, other) == trained(learner(), other)).all()
