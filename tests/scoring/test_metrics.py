"""Metrics against numbers a reader can redo, and against scipy."""

import math

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.scoring.metrics import (
    GroupScores,
    alignment,
    coefficient_of_variation,
    fairness_index,
    fairness_per_question,
    js_alignment,
    js_divergence,
    wasserstein_alignment,
)


def test_js_of_the_smallest_share_is_finite() -> None:
    assert js_divergence([1.0, 0.0], [1.0, 5e-324], np.array([2])) == pytest.approx([0.0])


def test_js_of_disjoint_answers_is_ln_2() -> None:
    divergence = js_divergence([1, 0, 0.5, 0.5], [0, 1, 0.5, 0.5], np.array([2, 2]))
    assert divergence == pytest.approx([math.log(2), 0.0])
    score = js_alignment([1, 0], [0, 1], np.array([2]))
    assert score == pytest.approx([1 - math.sqrt(math.log(2))])


@st.composite
def two_answers(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Shares of a few questions by two groups."""
    counts = draw(st.lists(st.integers(2, 6), min_size=1, max_size=5))
    share = st.integers(0, 10**6)  # scipy gives -inf where a share is below the normal floats

    def answer() -> list[list[float]]:
        raw = [draw(st.lists(share, min_size=n, max_size=n)) for n in counts]
        return [
            [value / sum(row) for value in row] if sum(row) else [1.0] + [0.0] * (n - 1)
            for row, n in zip(raw, counts, strict=True)
        ]

    return answer(), answer()


@given(two_answers())
def test_js_equals_scipy_and_is_symmetric(answers: tuple[list[list[float]], ...]) -> None:
    p, q = answers
    options = np.array([len(row) for row in p])
    score = js_alignment(np.concatenate(p), np.concatenate(q), options)
    expected = [1 - scipy.spatial.distance.jensenshannon(a, b) for a, b in zip(p, q, strict=True)]
    assert score == pytest.approx(expected, abs=1e-6)
    assert score == pytest.approx(js_alignment(np.concatenate(q), np.concatenate(p), options))
    assert (score >= 1 - math.sqrt(math.log(2)) - 1e-9).all()
    assert (score <= 1).all()


@pytest.mark.slow
@given(two_answers(), st.randoms(use_true_random=False))
def test_wasserstein_equals_scipy(answers: tuple[list[list[float]], ...], random) -> None:
    p, q = answers
    options = np.array([len(row) for row in p])
    values = [random.sample(range(10), len(row)) for row in p]  # in no order
    score = wasserstein_alignment(
        np.concatenate(p), np.concatenate(q), options, np.concatenate(values)
    )
    expected = [
        1 - scipy.stats.wasserstein_distance(v, v, a, b) / (max(v) - min(v))
        for a, b, v in zip(p, q, values, strict=True)
    ]
    assert score == pytest.approx(expected, abs=1e-9)


def test_wasserstein_counts_how_far_answers_lie_apart() -> None:
    options, values = np.array([3]), [1, 2, 3]
    assert wasserstein_alignment([1, 0, 0], [0, 1, 0], options, values) == pytest.approx([0.5])
    assert wasserstein_alignment([1, 0, 0], [0, 0, 1], options, values) == pytest.approx([0.0])
    assert alignment("wasserstein", [1, 0, 0], [1, 0, 0], options, values) == pytest.approx([1])


def test_wasserstein_needs_values() -> None:
    with pytest.raises(ValueError, match="ordinal"):
        alignment("wasserstein", [1, 0], [1, 0], np.array([2]))


def test_fairness_by_hand() -> None:
    # mean 0.7, population variance 0.01, CoV^2 = 0.01 / 0.49
    assert coefficient_of_variation([0.6, 0.8]) == pytest.approx(1 / 7)
    assert fairness_index([0.6, 0.8]) == pytest.approx(1 / (1 + 0.01 / 0.49))
    assert fairness_index([0.5, 0.5, 0.5]) == 1.0
    assert fairness_index([1.0, 0.0]) == pytest.approx(0.5)  # Jain's index of 1 in 2


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_fairness_index_is_jains_index(scores: list[float]) -> None:
    index = fairness_index(scores)
    assert 1 / len(scores) - 1e-9 <= index <= 1
    if sum(scores) > 1e-3:
        squares = sum(score**2 for score in scores)
        assert index == pytest.approx(sum(scores) ** 2 / (len(scores) * squares))


def scores(**groups: dict[int, float]) -> dict[str, GroupScores]:
    return {
        name: GroupScores(np.array(list(by_question)), np.array(list(by_question.values())))
        for name, by_question in groups.items()
    }


def test_fairness_per_question_uses_questions_two_groups_share() -> None:
    groups = scores(a={1: 0.6, 2: 0.9, 7: 0.1}, b={1: 0.8, 2: 0.9})
    expected = (1 / (1 + 0.01 / 0.49) + 1) / 2
    assert fairness_per_question(groups) == pytest.approx(expected)
    assert fairness_per_question(scores(a={1: 0.5}, b={2: 0.5})) is None
    assert fairness_per_question(scores(a={1: 0.0}, b={1: 0.0})) == 1.0
