"""Scores of a model beside those of others."""

import math
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import Distributions
from pluralllm_app.judge.beside import Setting, prepare_setting
from pluralllm_app.judge.verdict import Contender, Method, Summary, judge, unanswered
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.used import NEW, QUESTIONS, TRAITS, shares_of

MODEL = Method("model", "model")


def believing(trait: float, names: tuple[str, ...] = NEW, without: int = 0) -> Contender:
    """A model that answers as a group of this trait, but to the first questions."""
    shares = {
        index: np.array(shares_of(trait, question))
        for index, question in enumerate(QUESTIONS)
        if index >= without
    }
    return Contender(MODEL, by_group=dict.fromkeys(names, Distributions(shares, 1.0, 0.0, 0.0)))


def distance(one: float, other: float) -> float:
    """The mean JS distance of two groups by their traits."""
    total = 0.0
    for question in QUESTIONS:
        pair = shares_of(one, question), shares_of(other, question)
        divergence = sum(
            p * math.log(2 * p / (p + q)) / 2 + q * math.log(2 * q / (p + q)) / 2
            for p, q in zip(*pair, strict=True)
        )
        total += math.sqrt(max(divergence, 0.0))
    return total / len(QUESTIONS)


def test_scores_are_those_of_the_metric(setting: Setting) -> None:
    verdict = judge(setting.plan, [believing(TRAITS["North"]), *setting.beside])
    assert [method.name for method in verdict.methods] == ["model", "consensus", "uniform"]
    north, south = (verdict.scores[name]["model"] for name in NEW)
    assert north.alignment == pytest.approx(1, abs=1e-3)  # shares are kept in float32
    assert south.alignment == pytest.approx(1 - distance(0.2, 0.8), abs=1e-6)
    assert (north.questions, north.error) == (12, pytest.approx(0, abs=1e-3))
    found = verdict.summary("model")
    mean = (north.alignment + south.alignment) / 2
    spread = (north.alignment - south.alignment) / 2
    fi = pytest.approx(1 / (1 + (spread / mean) ** 2))
    assert found == Summary(pytest.approx(mean), south.alignment, "South", fi)
    # Yes and no at 0.5 each is what a group with trait 0.5 answers, as the consensus does.
    consensus = verdict.scores["North"]["consensus"].alignment
    assert consensus == pytest.approx(1 - distance(0.2, 0.5), abs=1e-6)


def test_a_predictor_is_scored_on_what_it_was_not_given(
    survey: PreparedSurvey, trained: Path
) -> None:
    setting = prepare_setting(survey, [], trained, 100, 0)
    verdict = judge(setting.plan, [believing(0.5), *setting.beside])
    for name in NEW:
        scores = verdict.scores[name]
        assert {score.questions for score in scores.values()} == {9}
        assert scores["predictor"].alignment > scores["consensus"].alignment


def test_what_a_model_does_not_answer_counts_for_nobody(setting: Setting) -> None:
    verdict = judge(setting.plan, [believing(0.5, without=1), *setting.beside])
    assert {s.questions for own in verdict.scores.values() for s in own.values()} == {11}
    assert unanswered(verdict) == []
    verdict = judge(setting.plan, [believing(0.5, without=2), *setting.beside])
    assert unanswered(verdict) == ["North (2 of 12)", "South (2 of 12)"]
    with pytest.raises(UserError, match=r"named no option in .* all 12 questions .*'North'"):
        judge(setting.plan, [believing(0.5, without=12), *setting.beside])
