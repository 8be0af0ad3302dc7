"""Whatever a group's answers are, its sums pass; what no answers can give does not."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralllm_app.core.segments import Doubles
from pluralllm_app.learning.description_sums import PENALTIES, DescriptionSums
from pluralllm_app.learning.sum_rules import check_sums
from pluralllm_app.learning.sums import contribution
from pluralllm_app.predictors.factors.calibration import BINS, CONTEXTS
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent, Variances
from pluralllm_app.predictors.factors.packing import pack_symmetric
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel
from tests.support.examples import at_most

Sums = dict[str, Doubles]
OWN = 20  # weights of what is a group's own


def made(
    factors: int = 2,
    noise: float = 0.01,
    people: float | None = None,
    sharpness: float = 2.0,
    seed: int = 0,
) -> tuple[Factors, float, int, Sums]:
    """Factors, the scale and weights of what is a group's own, and the group's honest sums."""
    rng = np.random.default_rng(seed)
    options = rng.integers(2, 5, 12)
    text = OptionRows.of(rng.normal(size=(options.sum(), 6)), options)
    kernel = TextKernel.fit(text, OWN)
    width, rows = 1 + factors, len(text)
    root = rng.normal(size=(rows, width, width)) * 0.05
    state = Factors(
        mean=rng.normal(size=(rows, width)) * 0.2,
        covariance=root @ root.transpose(0, 2, 1),
        weights=np.zeros((len(kernel.landmarks), width)),
        variances=Variances(
            noise=noise, own=0.05, spread=np.full(width, 0.01), text=np.full(width, 0.01)
        ),
    )
    shares = np.concatenate([rng.dirichlet(np.full(n, 1 / sharpness)) for n in options])
    respondents = None if people is None else np.where(rng.random(12) < 0.5, people, np.nan)
    answers = Answers.of(np.arange(rows), text, shares, respondents)
    part = contribution(state, answers, kernel.features(text), Latent.standard(factors))
    arrays = {
        **part.sums(rows).pack(),
        **DescriptionSums.of(rng.normal(size=6), 6, part.second).pack(),
        "errors": np.zeros((len(CONTEXTS), BINS)),
        "score": np.zeros(2),
        "agreement": np.zeros((3, len(PENALTIES), factors)),
        "described": np.zeros(1),
    }
    return state, 0.05, len(kernel.landmarks), arrays


@given(
    factors=st.integers(0, 6),
    noise=st.sampled_from([1e-8, 1e-5, 1e-3, 0.1, 10.0]),
    people=st.sampled_from([None, 1.0, 30.0, 1e6]),
    sharpness=st.sampled_from([0.1, 2.0, 50.0]),
    seed=st.integers(0, 1000),
)
@at_most(100)
def test_honest_sums_pass(
    factors: int, noise: float, people: float | None, sharpness: float, seed: int
) -> None:
    check_sums(*made(factors, noise, people, sharpness, seed))


def larger_latent(sums: Sums) -> Sums:
    """All that follows from a latent of a million."""
    z = np.array([1.0, 1e6, 0.0])
    latent = pack_symmetric(np.outer(z, z) + np.diag([0.0, 1.0, 1.0]))
    gram = sums["gram"][:, :1] * latent
    return {"latent": latent, "gram": gram}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda sums: {"gram": 1e3 * sums["gram"]}, "gram weighs answers by more"),
        (lambda sums: {"gram": -sums["gram"]}, "gram weighs answers by more"),
        (lambda sums: {"gram": sums["gram"] * [1, 1, 1, 1, 1, 2]}, "gram is no moment of latent"),
        (lambda sums: {"residual": sums["residual"] * [1, 2, 1]}, "residual does not follow"),
        (lambda sums: {"residual": sums["residual"] + [0, 0, 9]}, "residual does not follow"),
        (lambda sums: {"residual": sums["residual"] * [1e6, 1, 1]}, "residual is larger"),
        (lambda sums: {"own": sums["own"] * [1, 0]}, "own is not of"),
        (lambda sums: {"own": sums["own"] * [1e6, 1]}, "own is larger"),
        (lambda sums: {"cross": 1e3 * sums["cross"]}, "cross is larger"),
        (larger_latent, "latent is larger"),
    ],
)
def test_sums_that_no_answers_give_are_refused(change: Callable[[Sums], Sums], fault: str) -> None:
    *sent, sums = made()
    with pytest.raises(ValueError, match=fault):
        check_sums(*sent, sums | change(sums))  # type: ignore[arg-type]
