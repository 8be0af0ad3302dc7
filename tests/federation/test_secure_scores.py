"""Scores of which the server sees sums alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from pluralllm_app.errors import FederationError, RefusedError, SettingsError
from pluralllm_app.federation.messages import EVALUATION, MaskedScores
from pluralllm_app.federation.policy import Policy
from pluralllm_app.learning.registry import caution
from pluralllm_app.preferences import reserved_questions
from pluralllm_app.scoring.metrics import GroupScores, coefficient_of_variation, fairness_index
from pluralllm_app.scoring.sums import summands, summary_of_sums
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey, tiny_config
from tests.support.local_runs import Config, broken, cut_off, in_round, resumed, run
from tests.support.secure_runs import FIVE, SECURE, model

pytestmark = pytest.mark.slow

MEAN: Config = SECURE | {"scores": "mean"}
TRAIN, NEVER = FIVE[:4], ("Dogwood", "Elm", "Hazel")


@pytest.fixture(scope="session")
def seven(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey of four train groups and three that never train."""
    path = tmp_path_factory.mktemp("seven") / "survey"
    return make_survey(path, train=TRAIN, evaluation=NEVER)


@pytest.fixture
def of_seven(seven: PreparedSurvey, tmp_path: Path) -> Config:
    return tiny_config(seven, tmp_path / "run") | MEAN


def place(config: Config, seven: PreparedSurvey, name: str) -> int:
    return [group.name for group in seven.groups].index(name)


# ---- The same numbers ----


@pytest.mark.parametrize(
    "changes",
    [{}, {"predictor": "factors", "rounds": 3}, {"reserved-fraction": 0.3}],
    ids=str,
)
def test_means_and_fairness_are_those_of_single_scores(
    of_seven: Config, tmp_path: Path, changes: Config
) -> None:
    config = of_seven | changes
    _, summed = run(config, nodes=7)
    single = config | {"scores": "per-group", "out": str(tmp_path / "single")}
    _, known = run(single, nodes=7)
    assert model(config) == model(single)
    for entry, other in zip(summed, known, strict=True):
        evaluation, roles = entry["evaluation"], other["evaluation"]["roles"]
        assert evaluation["groups"] == {}
        for role, found in evaluation["roles"].items():
            reserved = "reserved-fraction" in changes
            for key in ("groups",) if reserved else ("groups", "mean", "cov", "fi"):
                # A share of 2^-57, and what subtracting squares makes of it.
                assert found[key] == pytest.approx(roles[role][key], abs=1e-7), (role, key)
            for key in ("worst", "worst_group", "gap", "pooled", "fi_per_question"):
                assert found[key] is None
            if reserved:
                halves = [found[key] for key in ("mean_seen", "mean_reserved")]
                for key, half in zip(("mean_seen", "mean_reserved"), halves, strict=True):
                    assert half == pytest.approx(roles[role][key], abs=1e-12)
                assert found["mean"] == sum(halves) / 2


def test_that_means_of_two_halves_are_another_score_is_said(
    make_settings: Callable[..., Settings],
) -> None:
    said = caution(make_settings(MEAN | {"reserved-fraction": 0.3}))
    assert "scores of such runs are not comparable with those of this one" in said
    assert caution(make_settings(MEAN | {"reserved-fraction": 0.0})) == ""
    assert caution(make_settings(SECURE | {"reserved-fraction": 0.3})) == ""


def test_sums_of_three_scores_by_hand(make_settings: Callable[..., Settings]) -> None:
    """0.6, 0.7 and 0.8: their mean is 0.7, their variance 0.02 / 3."""
    split = make_settings({"reserved-fraction": 0.0}).split
    groups = [GroupScores(np.array([0, 1]), np.array([s - 0.1, s + 0.1])) for s in (0.6, 0.7, 0.8)]
    added = [summands(group, split) for group in groups]
    assert added[0] == {"score": pytest.approx(0.6), "square": pytest.approx(0.36)}
    sums = {name: sum(each[name] for each in added) for name in added[0]}
    found = summary_of_sums(sums, 3)
    assert found.mean == pytest.approx(0.7)
    assert found.cov == pytest.approx(np.sqrt(0.02 / 3) / 0.7)
    assert found.cov == pytest.approx(coefficient_of_variation([0.6, 0.7, 0.8]))
    assert found.fi == pytest.approx(fairness_index([0.6, 0.7, 0.8]))
    alike = summary_of_sums({"score": 2.1, "square": 1.47}, 3)
    assert (alike.cov, alike.fi) == (pytest.approx(0, abs=1e-7), pytest.approx(1))


def test_reserved_questions_add_one_equation_and_not_two(
    make_settings: Callable[..., Settings],
) -> None:
    """Of three scores, 0.8 on three seen questions and 0.4 on a reserved one make 0.6.

    Four sums would tell both halves of the scores of two groups to a third.
    """
    split = make_settings({"reserved-fraction": 0.3}).split
    reserved = reserved_questions(np.arange(200), split)
    questions = np.append(np.flatnonzero(~reserved)[:3], np.flatnonzero(reserved)[:1])
    added = summands(GroupScores(questions, np.array([0.7, 0.8, 0.9, 0.4])), split)
    assert added == pytest.approx({"seen": 0.8, "reserved": 0.4, "square": 0.36})
    found = summary_of_sums({"seen": 2.4, "reserved": 1.2, "square": 3 * 0.36 + 0.02}, 3)
    assert found.mean == pytest.approx(0.6)
    assert found.cov == pytest.approx(np.sqrt(0.02 / 3) / 0.6)
    assert found.selection_score == pytest.approx(0.8)


def test_the_best_predictor_is_kept_by_the_summed_mean(of_seven: Config) -> None:
    record, rounds = run(of_seven | {"rounds": 3}, nodes=7)
    means = [entry["evaluation"]["roles"]["train"]["mean"] for entry in rounds]
    assert record["best_score"] == max(means)
    assert record["best_round"] == means.index(max(means))


@pytest.mark.parametrize("exchange", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(
    of_seven: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: int
) -> None:
    whole = of_seven | {"out": str(tmp_path / "whole")}
    _, wanted = run(whole, nodes=7)
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.local_runs.run", lambda it: run(it, nodes=7))
        cut_off(of_seven, exchange, monkeypatch)
    _, found = run(resumed(of_seven), nodes=7)
    assert [each["evaluation"] for each in found] == [each["evaluation"] for each in wanted]


# ---- What the server sees ----


def test_no_score_and_no_scored_question_is_in_a_message(of_seven: Config) -> None:
    words: list[Any] = []

    def listen(partition: int, reply: Message) -> Message:
        found = reply.content.get(EVALUATION)
        if found is not None:
            assert isinstance(found, ArrayRecord)
            masked = MaskedScores.from_content(reply.content)
            assert {*masked.arrays} == {"masked"}
            words.append(masked.arrays["masked"])
        return reply

    run(of_seven, nodes=7, reply=listen)
    assert len(words) == 7 * 3
    assert all(each.shape == (3,) and each.dtype == np.uint64 for each in words)
    assert len(np.unique(words)) == 3 * len(words)


# ---- Groups that are lost ----


def lost(group: int, number: int, phase: str) -> Callable[[int, Message], Message | None]:
    hit = in_round(number, group, phase)
    return lambda who, reply: None if hit(who, reply) else reply


def test_a_lost_group_ends_its_roles_mean_in_that_evaluation(
    of_seven: Config, seven: PreparedSurvey
) -> None:
    """It is named; the run goes on, and later evaluations are over all groups again."""
    group = place(of_seven, seven, "Elm")
    _, rounds = run(of_seven | {"rounds": 3}, nodes=7, reply=lost(group, 2, "evaluate"))
    known = [entry["evaluation"]["roles"]["evaluation"] is not None for entry in rounds]
    assert known == [True, False, True, True]
    assert all(entry["evaluation"]["roles"]["train"]["groups"] == 4 for entry in rounds)
    [failure] = rounds[1]["failures"]
    assert (failure["group"], failure["phase"]) == ("Elm", "evaluate")
    assert "so evaluation groups have no mean score" in failure["reason"]


def test_a_train_group_lost_at_first_stays_out_of_the_means(
    of_seven: Config, seven: PreparedSurvey
) -> None:
    """Else the next mean, less this one, would be its score."""
    group = place(of_seven, seven, "Fir")
    _, rounds = run(of_seven, nodes=7, reply=lost(group, 1, "train"))
    assert [entry["evaluation"]["roles"]["train"]["groups"] for entry in rounds] == [3, 3, 3]
    sums = [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]]
    assert sums == [3, 4]  # it trains again


def test_masks_that_do_not_cancel_end_the_run(of_seven: Config, seven: PreparedSurvey) -> None:
    def change(content: Any) -> None:
        masked = MaskedScores.from_content(content)
        changed = {"masked": masked.arrays["masked"] + np.uint64(1)}
        content.update(MaskedScores(changed, masked.seconds).to_content())

    hit = in_round(2, place(of_seven, seven, "Elm"), "evaluate")
    with pytest.raises(FederationError, match="do not cancel"):
        run(of_seven, nodes=7, reply=broken(change, hit))


# ---- What is refused ----


def test_without_secure_sums_there_are_no_means(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="scores = 'mean' is for privacy = 'secure-sum'"):
        make_settings({"scores": "mean"})


def test_two_groups_hide_no_score(config: Config) -> None:
    """The tiny survey has two groups that never train."""
    with pytest.raises(FederationError, match="scores = 'mean' with 2 evaluation groups"):
        run(config | MEAN)


def test_a_node_whose_scores_stay_adds_to_sums(make_settings: Callable[..., Settings]) -> None:
    policy = Policy(single_scores="stay")
    policy.check_scores(make_settings(dict(MEAN)))
    with pytest.raises(RefusedError, match="with scores = mean it adds them to a secure sum"):
        policy.check_scores(make_settings(dict(SECURE)))
