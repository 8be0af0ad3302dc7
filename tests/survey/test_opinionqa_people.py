"""How many people are behind exact shares."""

import math

import numpy as np
import pytest

from pluralllm_app.survey.sources.opinionqa.people import infer_people

ZETA = {2: math.pi**2 / 6, 3: 1.2020569, 4: math.pi**4 / 90}


def test_counts_are_recovered_up_to_a_common_divisor():
    three, two, sure = [87 / 304, 162 / 304, 55 / 304], [14 / 35, 0.0, 21 / 35], [1.0, 0.0]
    people = infer_people([three, two, sure])
    assert people[0] == pytest.approx(304 * ZETA[3] / ZETA[4], rel=1e-3)
    assert people[1] == pytest.approx(5 * ZETA[2] / ZETA[3], rel=1e-3)  # 2 of 5
    assert math.isnan(people[2])


@pytest.mark.slow
@pytest.mark.parametrize("options", [2, 3, 5])
def test_noise_is_right_on_average(options):
    """1 / n, to which a share's variance is proportional, over answers of 50 to 2,000 people."""
    rng = np.random.default_rng(options)
    people = rng.integers(50, 2000, 3000)
    counts = rng.multinomial(people, rng.dirichlet(np.full(options, 5.0), 3000))
    inferred = infer_people((counts / people[:, None]).tolist())
    known = ~np.isnan(inferred)
    assert known.mean() > 0.9
    ratio = np.array(inferred)[known] / people[known]  # of the true variance to the inferred one
    assert ratio.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "answers",
    [
        [[0.25, 0.75], [0.2, 0.8], [1 / 3, 2 / 3]],  # most are rounded to two digits
        [[1 / 3, 2 / 3], [0.123456789, 0.876543211]],  # weighted
        [[1.0, 0.0]],
    ],
)
def test_rounded_or_weighted_shares_tell_nothing(answers):
    assert np.isnan(infer_people(answers)).all()
