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
from pluralllm_app.scoring.metrics import GroupScores, coefficient_of_variation, fairness_index
from pluralllm_app.scoring.sums import summands, summary_of_sums
from pluralllm_app.settings import Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import make_survey, tiny_config
from tests.support.local_runs import Config, broken, cut_off, in_round, resumed, run
from tests.support.secure_runs import FIVE, SECURE, model

MEAN: Config = SECURE | {"scores": "mean"}
NEVER = ("Dogwood", "Elm", "Hazel", "Ivy")  # with the groups of FIVE: partitions 3, 4, 7, 8 of 10


@pytest.fixture(scope="session")
def nine(tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """A survey of five train groups and four that never train."""
    path = tmp_path_factory.mktemp("nine") / "survey"
    return make_survey(path, train=FIVE, evaluation=NEVER)


@pytest.fixture
def of_nine(nine: PreparedSurvey, tmp_path: Path) -> Config:
    return tiny_config(nine, tmp_path / "run") | MEAN


def place(config: Config, nine: PreparedSurvey, name: str) -> int:
    return [group.name for group in nine.groups].index(name)


# ---- The same numbers ----


@pytest.mark.parametrize(
    "changes",
    [{}, {"predictor": "factors", "rounds": 3}, {"reserved-fraction": 0.3}],
    ids=str,
)
def test_means_and_fairness_are_those_of_single_scores(
    of_nine: Config, tmp_path: Path, changes: Config
) -> None:
    config = of_nine | changes
    _, summed = run(config, nodes=9)
    single = config | {"scores": "per-group", "out": str(tmp_path / "single")}
    _, known = run(single, nodes=9)
    assert model(config) == model(single)
    for entry, other in zip(summed, known, strict=True):
        evaluation, roles = entry["evaluation"], other["evaluation"]["roles"]
        assert evaluation["groups"] == {}
        for role, found in evaluation["roles"].items():
            for key in ("groups", "mean", "cov", "fi"):
                # A share of 2^-57, and what subtracting squares makes of it.
                assert found[key] == pytest.approx(roles[role][key], abs=1e-7), (role, key)
            for key in ("worst", "worst_group", "gap", "pooled", "fi_per_question"):
                assert found[key] is None
            if "reserved-fraction" in changes:
                for key in ("mean_seen", "mean_reserved"):
                    assert found[key] == pytest.approx(roles[role][key], abs=1e-12)


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


def test_the_best_predictor_is_kept_by_the_summed_mean(of_nine: Config) -> None:
    record, rounds = run(of_nine | {"rounds": 3}, nodes=9)
    means = [entry["evaluation"]["roles"]["train"]["mean"] for entry in rounds]
    assert record["best_score"] == max(means)
    assert record["best_round"] == means.index(max(means))


@pytest.mark.parametrize("exchange", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(
    of_nine: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: int
) -> None:
    whole = of_nine | {"out": str(tmp_path / "whole")}
    _, wanted = run(whole, nodes=9)
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.local_runs.run", lambda it: run(it, nodes=9))
        cut_off(of_nine, exchange, monkeypatch)
    _, found = run(resumed(of_nine), nodes=9)
    assert [each["evaluation"] for each in found] == [each["evaluation"] for each in wanted]


# ---- What the server sees ----


def test_no_score_and_no_scored_question_is_in_a_message(of_nine: Config) -> None:
    words: list[Any] = []

    def listen(partition: int, reply: Message) -> Message:
        found = reply.content.get(EVALUATION)
        if found is not None:
            assert isinstance(found, ArrayRecord)
            masked = MaskedScores.from_content(reply.content)
            assert {*masked.arrays} == {"masked"}
            words.append(masked.arrays["masked"])
        return reply

    run(of_nine, nodes=9, reply=listen)
    assert len(words) == 9 * 3
    assert all(each.shape == (3,) and each.dtype == np.uint64 for each in words)
    assert len(np.unique(words)) == 3 * len(words)


# ---- Groups that are lost ----


def lost(group: int, number: int, phase: str) -> Callable[[int, Message], Message | None]:
    hit = in_round(number, group, phase)
    return lambda who, reply: None if hit(who, reply) else reply


def test_a_lost_group_ends_its_roles_mean_in_that_evaluation(
    of_nine: Config, nine: PreparedSurvey
) -> None:
    """It is named; the run goes on, and later evaluations are over all groups again."""
    group = place(of_nine, nine, "Elm")
    _, rounds = run(of_nine | {"rounds": 3}, nodes=9, reply=lost(group, 2, "evaluate"))
    known = [entry["evaluation"]["roles"]["evaluation"] is not None for entry in rounds]
    assert known == [True, False, True, True]
    assert all(entry["evaluation"]["roles"]["train"]["groups"] == 5 for entry in rounds)
    [failure] = rounds[1]["failures"]
    assert (failure["group"], failure["phase"]) == ("Elm", "evaluate")
    assert "so evaluation groups have no mean score" in failure["reason"]


def test_a_train_group_lost_at_first_stays_out_of_the_means(
    of_nine: Config, nine: PreparedSurvey
) -> None:
    """Else the next mean, less this one, would be its score."""
    group = place(of_nine, nine, "Gum")
    _, rounds = run(of_nine, nodes=9, reply=lost(group, 1, "train"))
    assert [entry["evaluation"]["roles"]["train"]["groups"] for entry in rounds] == [4, 4, 4]
    sums = [entry["train"]["secure_sum"]["groups"] for entry in rounds[1:]]
    assert sums == [4, 5]  # it trains again


def test_masks_that_do_not_cancel_end_the_run(of_nine: Config, nine: PreparedSurvey) -> None:
    def change(content: Any) -> None:
        masked = MaskedScores.from_content(content)
        changed = {"masked": masked.arrays["masked"] + np.uint64(1)}
        content.update(MaskedScores(changed, masked.seconds).to_content())

    hit = in_round(2, place(of_nine, nine, "Elm"), "evaluate")
    with pytest.raises(FederationError, match="do not cancel"):
        run(of_nine, nodes=9, reply=broken(change, hit))


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
