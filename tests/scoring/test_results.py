"""Summaries of evaluations, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pluralllm_app.preferences import reserved_questions
from pluralllm_app.scoring.evaluation import GroupEvaluation
from pluralllm_app.scoring.metrics import GroupScores
from pluralllm_app.scoring.results import GroupResult, summarise, summarise_role
from pluralllm_app.settings import SplitSettings

PLAIN = SplitSettings(held_out_fraction=0.1, reserved_fraction=0.0, evaluation_seed=0)
RESERVING = replace(PLAIN, reserved_fraction=0.5)
QUESTIONS = np.arange(8)
RESERVED = reserved_questions(QUESTIONS, RESERVING)


def scores(*values: float) -> GroupScores:
    return GroupScores(np.arange(len(values)), np.array(values))


def test_summary_by_hand() -> None:
    summary = summarise_role({"b": scores(0.8, 0.8, 0.8), "a": scores(0.6)}, PLAIN)
    assert summary.groups == 2
    assert summary.mean == pytest.approx(0.7)
    assert summary.pooled == pytest.approx(0.75)
    assert (summary.worst, summary.worst_group) == (pytest.approx(0.6), "a")
    assert summary.gap == pytest.approx(0.2)
    assert summary.cov == pytest.approx(1 / 7)
    assert summary.fi == pytest.approx(49 / 50)
    assert summary.mean_seen is summary.mean_reserved is None
    assert summary.selection_score == summary.mean


def test_summary_tells_seen_from_reserved_questions() -> None:
    groups = {
        "A": GroupScores(QUESTIONS, np.where(RESERVED, 0.2, 0.8)),
        "B": GroupScores(QUESTIONS, np.where(RESERVED, 0.4, 0.6)),
    }
    summary = summarise_role(groups, RESERVING)
    assert summary.mean_seen == pytest.approx(0.7)
    assert summary.mean_reserved == pytest.approx(0.3)
    assert summary.selection_score == summary.mean_seen


def test_nothing_is_chosen_by_reserved_questions_alone() -> None:
    only = GroupScores(QUESTIONS[RESERVED], np.full(RESERVED.sum(), 0.9))
    summary = summarise_role({"A": only}, RESERVING)
    assert (summary.mean_seen, summary.mean_reserved) == (None, pytest.approx(0.9))
    assert summary.selection_score == -math.inf


def test_groups_are_told_apart_by_role() -> None:
    evaluations = {
        "A": GroupEvaluation(scores(0.5, 0.7), -1.0),
        "B": GroupEvaluation(scores(0.9), None),
    }
    result = summarise(evaluations, {"A": "train", "B": "train", "C": "evaluation"}, PLAIN)
    assert result.roles["evaluation"] is None
    assert result.roles["train"] is not None
    assert result.roles["train"].mean == pytest.approx(0.75)
    assert result.groups["B"] == GroupResult(role="train", alignment=0.9, loss=None, questions=1)
    assert result.groups["A"].loss == -1.0
