"""What is believed of a group, exactly and by landmarks, also about questions that are new."""

import numpy as np
import pytest

from pluralllm_app.predictors.factors import posterior
from pluralllm_app.predictors.factors.asking import choose
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent, Variances
from pluralllm_app.predictors.factors.new_rows import NewRows
from pluralllm_app.predictors.factors.posterior import ByFeatures, Group, given
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

RNG = np.random.default_rng(3)
OPTIONS = np.array([2, 3, 4, 2, 3, 2, 5, 2])
ROWS = int(OPTIONS.sum())
TEXT = OptionRows.of(RNG.normal(size=(ROWS, 5)), OPTIONS)
KERNEL = TextKernel.fit(TEXT, ROWS)  # as many landmarks as rows: nothing is approximated
FACTORS = Factors(
    mean=RNG.normal(scale=0.1, size=(ROWS, 3)),
    covariance=np.tile(0.001 * np.eye(3), (ROWS, 1, 1)),
    weights=RNG.normal(scale=0.1, size=(len(KERNEL.landmarks), 3)),
    variances=Variances(
        noise=0.004, own=0.02, spread=np.array([0.01, 0.002, 0.001]), text=np.full(3, 0.05)
    ),
)
LATENT = Latent(mean=np.array([0.3, -0.2]), covariance=np.array([[0.8, 0.1], [0.1, 0.5]]))
STARTS = np.cumsum(OPTIONS) - OPTIONS


def rows_of(questions: list[int]) -> np.ndarray:
    return np.concatenate([STARTS[q] + np.arange(OPTIONS[q]) for q in questions])


def answers(questions: list[int]) -> Answers:
    shares = np.concatenate([RNG.dirichlet(np.ones(OPTIONS[q])) for q in questions])
    text = TEXT.select(np.array(questions))
    return Answers.of(rows_of(questions), text, shares)


def test_by_landmarks_it_is_the_same_as_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    context, asked = answers([0, 2, 4, 5]), [1, 3, 6]
    exact = given(FACTORS, KERNEL, context, LATENT)
    monkeypatch.setattr(posterior, "MOST_EXACT", 0)
    landmarks = given(FACTORS, KERNEL, context, LATENT)
    assert isinstance(landmarks, ByFeatures)
    assert not isinstance(exact, ByFeatures)
    text = TEXT.select(np.array(asked))
    one, other = (each.believe(rows_of(asked), text) for each in (exact, landmarks))
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-5)
    np.testing.assert_allclose(other.variance, one.variance, atol=1e-5)


def test_a_new_row_is_what_its_text_says() -> None:
    new = NewRows(KERNEL, lambda: TEXT)
    size = ROWS
    known, like = [1], TEXT.select(np.array([1]))
    found = new.extend(FACTORS, size + np.arange(OPTIONS[1]), like)
    phi = KERNEL.features(like)
    np.testing.assert_allclose(found.mean, phi @ FACTORS.weights)
    far = OptionRows.of(RNG.normal(size=(OPTIONS[1], 5)) * 100, OPTIONS[1:2])
    unlike = new.extend(FACTORS, size + np.arange(OPTIONS[1]), far)
    near_variance, far_variance = (
        np.einsum("rii->ri", each.covariance).mean(0) for each in (found, unlike)
    )
    assert (near_variance > FACTORS.variances.spread).all()
    assert (far_variance > near_variance).all()
    # Known rows among them keep what was learned of them.
    both = new.extend(
        FACTORS,
        np.concatenate([rows_of(known), size + np.arange(3)]),
        TEXT.select(np.array([1, 1])),
    )
    np.testing.assert_array_equal(both.mean[:3], FACTORS.mean[rows_of(known)])
    np.testing.assert_array_equal(both.covariance[:3], FACTORS.covariance[rows_of(known)])
    np.testing.assert_allclose(both.mean[3:], found.mean, atol=1e-7)


def left_after(asked: list[int], wanted: list[int]) -> float:
    """The variance of the wanted questions that are not asked, once others are."""
    belief = ByFeatures.of(Group(FACTORS, KERNEL, LATENT, None), answers(asked))
    rest = [question for question in wanted if question not in asked]
    return float(belief.believe(rows_of(rest), TEXT.select(np.array(rest))).variance.sum())


def test_the_question_is_chosen_that_leaves_least_uncertain() -> None:
    every, wanted = list(range(len(OPTIONS))), [1, 4, 6]
    start = ByFeatures.before(Group(FACTORS, KERNEL, LATENT, None))
    for aims in (wanted, every):
        chosen: list[int] = []
        ways = choose(
            start,
            (np.arange(ROWS), TEXT),
            (rows_of(aims), TEXT.select(np.array(aims))),
            np.isin(every, aims),
            np.ones(len(every)),
        )
        for choice in list(ways)[:3]:
            drops = {}
            for question in every:
                if question in chosen:
                    continue
                # What remains of the others, before and after; its own variance does not count.
                others = [aim for aim in aims if aim != question]
                before = left_after(chosen, others) if chosen else variance_of(others)
                drops[question] = before - left_after([*chosen, question], others)
            best = max(drops, key=lambda question: drops[question])
            assert choice.place == best
            chosen.append(choice.place)


def variance_of(questions: list[int]) -> float:
    belief = ByFeatures.before(Group(FACTORS, KERNEL, LATENT, None))
    return float(
        belief.believe(rows_of(questions), TEXT.select(np.array(questions))).variance.sum()
    )


def test_what_costs_less_is_asked_first() -> None:
    start = ByFeatures.before(Group(FACTORS, KERNEL, LATENT, None))
    everything = (np.arange(ROWS), TEXT)
    wanted = np.ones(len(OPTIONS), bool)

    def first(costs: np.ndarray) -> int:
        return next(choose(start, everything, everything, wanted, costs)).place

    usual = first(np.ones(len(OPTIONS)))
    dear = np.ones(len(OPTIONS))
    dear[usual] = 1000.0
    assert first(dear) != usual


def test_what_is_explained_grows_and_ends() -> None:
    start = ByFeatures.before(Group(FACTORS, KERNEL, LATENT, None))
    everything = (np.arange(ROWS), TEXT)
    wanted = np.ones(len(OPTIONS), bool)
    found = list(choose(start, everything, everything, wanted, np.ones(len(OPTIONS))))
    explained = [choice.explained for choice in found]
    assert len({choice.place for choice in found}) == len(found) <= len(OPTIONS)
    assert explained == sorted(explained)
    assert 0 < explained[0] < explained[-1] < 1
