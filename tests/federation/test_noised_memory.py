"""What groups remember from round to round in runs with noise for respondents."""

import re
from pathlib import Path

import pytest
from flwr.app import Message

from pluralllm_app.learning.base import MEMORIES
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN, tiny_config
from tests.support.local_runs import Config, run
from tests.support.noised import FACTORS, NOISE, REFINED, survey

__all__ = ["survey"]


@pytest.mark.parametrize(
    "learner",
    [
        pytest.param({}, id="gpo", marks=pytest.mark.slow),
        pytest.param(FACTORS, id="factors"),
        pytest.param(REFINED, id="refined", marks=pytest.mark.slow),
    ],
)
def test_what_was_learned_without_noise_is_not_used_with_it(
    survey: PreparedSurvey, tmp_path: Path, learner: Config
) -> None:
    """A server chooses the name under which a node remembers: no file is of both kinds of run."""

    def remembered(config: Config) -> set[str]:
        found = set()
        memories = Path(str(config["out"])) / MEMORIES

        def reply(partition: int, message: Message) -> Message:
            for file in memories.rglob("*.safetensors"):
                place = file.relative_to(memories).as_posix()
                found.add(re.sub("[0-9a-f]{32}", "", place))
            return message

        run(config | learner | {"client-optimizer-state": "keep"}, reply=reply)
        return found

    plain = remembered(tiny_config(survey, tmp_path / "plain"))
    noised = remembered(tiny_config(survey, tmp_path / "noised") | NOISE)
    assert plain
    assert len(noised) > len(TRAIN)  # that of the learners beside noised answers
    assert not plain & noised
