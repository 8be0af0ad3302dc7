"""What groups answer to a server that rewards a language model, in this process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from pluralllm_app import client_app
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record, record_to_arrays
from pluralllm_app.federation.policy import Policy
from pluralllm_app.federation.reward_group import ANSWERED, SHARES
from pluralllm_app.federation.reward_server import Asked, Shares, asked_shares, run_rewards
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import TRAIN, make_survey
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import Config

# Questions 0 and 1 (options 2 and 3), and the last question, which Cedar has not answered.
ROWS = [0, 1, 3, 72, 74]
CLEAR: Config = {"purpose": "rewards", "privacy": "none"}
SECURE: Config = {"purpose": "rewards", "privacy": "secure-sum", "rounds": 1}
# 2^-60 of each group; float64 adds as much.
EXACT = 1e-15


def ask(config: Config, rows: list[int] = ROWS, **grid: Any) -> Shares:
    nodes = LocalGrid(client_app.app, config, **{"nodes": 5, **grid})
    return asked_shares(nodes, Settings.from_config(config), np.array(rows))


def true(survey: PreparedSurvey, group: str) -> list[float | None]:
    """What a group answers to ROWS."""
    own = survey.preferences(group)
    known = dict(zip(own.rows.tolist(), own.shares.tolist(), strict=True))
    return [known.get(row) for row in ROWS]


def test_in_the_clear_each_group_says_its_shares(
    config: Config, tiny_survey: PreparedSurvey
) -> None:
    found = ask(config | CLEAR)
    assert found.groups == list(TRAIN)  # and none of the evaluation groups
    assert found.single == [true(tiny_survey, group) for group in TRAIN]
    assert found.contributors == [3, 3, 3, 2, 2]
    assert found.single[2][3:] == [None, None]


def test_a_secure_sum_leaves_out_what_too_few_groups_answered(
    config: Config, tiny_survey: PreparedSurvey
) -> None:
    found = ask(config | SECURE)
    each = [true(tiny_survey, group) for group in TRAIN]
    first = [sum(row[option] or 0 for row in each) for option in range(3)]
    assert found.contributors == [3, 3, 3, 2, 2]
    assert found.single is None
    assert found.sums is not None
    assert found.sums[:3] == pytest.approx(first, abs=EXACT)
    assert found.sums[3:] == [0, 0]
    two = ask(config | SECURE | {"min-contributors": 2})
    assert two.sums is not None
    assert two.sums[4] == pytest.approx((each[0][4] or 0) + (each[1][4] or 0), abs=EXACT)


def test_no_message_of_a_secure_sum_holds_a_share(
    config: Config, tiny_survey: PreparedSurvey
) -> None:
    replies: list[Message] = []

    def keep(_: int, message: Message) -> Message:
        replies.append(message)
        return message

    ask(config | SECURE, reply=keep)
    texts = [
        array.data
        for reply in replies
        for record in reply.content.array_records.values()
        for array in record.values()
    ]
    assert len(texts) == 2 * len(TRAIN)
    for group in TRAIN:
        for share in true(tiny_survey, group)[:3]:
            assert not any(np.float64(share).tobytes() in text for text in texts)
            assert not any(np.float32(share).tobytes() in text for text in texts)


@pytest.mark.parametrize("secure", [CLEAR, SECURE])
def test_no_reward_without_a_group(config: Config, secure: Config) -> None:
    """A mean over others than those of another call would tell what the missing group says."""

    def reply(partition: int, message: Message) -> Message | None:
        if partition == 1 and message.content.array_records:
            raise RuntimeError
        return message

    with pytest.raises(FederationError, match="Birch"):
        ask(config | secure | {"secure-threshold": 3 if secure is SECURE else 0}, reply=reply)


@pytest.mark.parametrize(
    ("name", "at", "value", "reason"),
    [
        (SHARES, 0, 2.0, "its shares are not within 0 and 1"),
        (SHARES, 0, -0.1, "its shares are not within 0 and 1"),
        (SHARES, 0, np.nan, "its shares are not all finite"),
        (SHARES, 0, 1.0, "its shares of a question is above 1.00001"),
        (ANSWERED, 0, 0.5, "it has answered a part of an option"),
        (ANSWERED, 0, 0.0, "it has shares of options that it has not answered"),
    ],
)
def test_an_answer_beyond_its_bounds_is_refused_by_name(
    config: Config, name: str, at: int, value: float, reason: str
) -> None:
    def reply(partition: int, message: Message) -> Message:
        if partition == 1 and ARRAYS in message.content:
            arrays = record_to_arrays(message.content.array_records[ARRAYS])
            changed = arrays[name].copy()
            changed[at] = value
            message.content[ARRAYS] = arrays_to_record(arrays | {name: changed})
        return message

    with pytest.raises(FederationError, match=f"Birch: refused: {reason}"):
        ask(config | CLEAR, reply=reply)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (lambda arrays: {ANSWERED: arrays[ANSWERED]}, "its arrays are not answered, shares"),
        (
            lambda arrays: {name: each[:2] for name, each in arrays.items()},
            r"its answered are float64 \(2,\), not float64 \(5,\)",
        ),
        (
            lambda arrays: {
                ANSWERED: np.array([1.0, 0, 1, 1, 1]),
                SHARES: np.array([0.1, 0, 0.1, 0.1, 0.1]),
            },
            "it has answered some options of a question and not the others",
        ),
    ],
)
def test_an_answer_of_another_shape_is_refused_by_name(
    config: Config, shape: Callable[[Any], Any], reason: str
) -> None:
    def reply(partition: int, message: Message) -> Message:
        if partition == 1 and ARRAYS in message.content:
            arrays = record_to_arrays(message.content.array_records[ARRAYS])
            message.content[ARRAYS] = arrays_to_record(shape(arrays))
        return message

    with pytest.raises(FederationError, match=f"Birch: refused: {reason}"):
        ask(config | CLEAR, reply=reply)


@pytest.mark.parametrize("which", [0, 1])
def test_a_sum_that_no_answers_have_gives_no_reward(config: Config, which: int) -> None:
    """Birch adds 4 to each number of the sum, of contributors or of shares."""
    sent: list[Message] = []

    def reply(partition: int, message: Message) -> Message:
        if partition == 1 and ARRAYS in message.content:
            sent.append(message)
            if len(sent) == which + 1:
                [(name, words)] = record_to_arrays(message.content.array_records[ARRAYS]).items()
                changed = words.copy()
                changed[-len(ROWS) :] += np.uint64(4 << 60)
                message.content[ARRAYS] = arrays_to_record({name: changed})
        return message

    with pytest.raises(FederationError, match="no answers of these groups can have"):
        ask(config | SECURE, reply=reply)
    assert len(sent) == which + 1


@pytest.mark.parametrize("rows", [[], [1, 0], [0, 0], [-1, 0], [0, 75]])
@pytest.mark.parametrize("secure", [CLEAR, SECURE])
def test_groups_answer_to_options_of_their_survey_alone(
    config: Config, rows: list[int], secure: Config
) -> None:
    with pytest.raises(FederationError, match=r"the server (asks for options|'s question)"):
        ask(config | secure, np.array(rows, np.int64))  # type: ignore[arg-type]


def test_a_run_is_for_training_or_for_rewards(config: Config) -> None:
    """Else a server could train where a policy lets it reward, or the other way round."""
    with pytest.raises(FederationError, match="the run is not for rewards"):
        ask(config | {"privacy": "none"})
    grid = LocalGrid(client_app.app, config | CLEAR, nodes=5)
    with pytest.raises(FederationError, match="the run is for rewards, and the server asks for"):
        run_federation(grid, Settings.from_config(config), config)


def test_two_groups_have_no_secure_sum(config: Config, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "two", train=("Alder", "Birch"), evaluation=())
    with pytest.raises(FederationError, match="a sum over fewer than 3 hides nothing"):
        ask(config | SECURE | {"survey": str(survey.path)}, nodes=2)


@pytest.mark.parametrize(
    ("policy", "privacy", "reason"),
    [
        ("refuse", "secure-sum", "how many of this group's people pick which options"),
        ("refuse", "none", "how many of this group's people pick which options"),
        ("secure-sum", "none", "the server sees this group's own answers"),
        ("secure-sum", "secure-sum", None),
        ("clear", "secure-sum", None),
        ("clear", "none", None),
    ],
)
def test_the_owner_of_a_node_says_whether_it_rewards(
    make_settings: Callable[..., Settings], policy: Any, privacy: Scalar, reason: str | None
) -> None:
    settings = make_settings({"purpose": "rewards", "privacy": privacy})
    rules = replace(Policy(), rewards=policy)
    if reason is None:
        rules.check(settings)
        return
    with pytest.raises(FederationError, match=reason):
        rules.check(settings)


def test_rewards_are_of_noised_answers_where_the_run_has_noise(
    tmp_path: Path, config: Config
) -> None:
    """They are drawn once: a second call costs nothing, and cannot take the mean of two draws."""
    survey = make_survey(tmp_path / "asked", respondents=400)
    noisy = config | CLEAR | {"survey": str(survey.path), "noise": "respondents", "epsilon": 4.0}
    first, second = ask(noisy), ask(noisy)
    assert first == second
    assert first.single is not None
    noised = np.array(first.single[0], np.float64)
    moved = np.abs(noised - np.array(true(survey, "Alder"), np.float64))
    assert (moved > 0).all()
    assert moved.mean() < 0.2


def test_a_limit_of_epsilon_holds_for_rewards(make_settings: Callable[..., Settings]) -> None:
    rules = replace(Policy(), rewards="clear", most_epsilon=2.0)
    with pytest.raises(FederationError, match="nothing bounds what is told of a respondent"):
        rules.check(make_settings(CLEAR))
    rules.check(make_settings(CLEAR | {"noise": "respondents", "epsilon": 1.0}))


def test_by_default_a_node_gives_no_rewards() -> None:
    assert Policy().rewards == "refuse"
    assert "answer of this group" in " ".join(replace(Policy(), rewards="clear").cautions())


def test_a_run_asks_what_is_in_its_directory(config: Config, tiny_survey: PreparedSurvey) -> None:
    out = Path(str(config["out"]))
    settings = Settings.from_config(config | CLEAR)
    grid = LocalGrid(client_app.app, config | CLEAR, nodes=5)
    with pytest.raises(FederationError, match="purpose = 'rewards' is for `pluralllm deploy"):
        run_rewards(grid, settings, lambda line: None)
    out.mkdir()
    Asked(ROWS).write(out)
    run_rewards(grid, settings, lambda line: None)
    assert Shares.read(out) == ask(config | CLEAR)
    assert {file.name for file in out.iterdir()} == {"asked.json", "answered.json"}
