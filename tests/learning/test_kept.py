"""Tests of what a process keeps between messages."""

from dataclasses import replace

import numpy as np
import pytest

from pluralllm_app.core.seeding import generator
from pluralllm_app.learning import kept
from pluralllm_app.learning.kept import Kept, KeptKernel, Unpacked
from pluralllm_app.learning.sums import first_factors
from pluralllm_app.predictors.factors.packing import pack_factors
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel

OPTIONS = np.array([2, 3, 2, 4, 2])


@pytest.fixture
def text() -> OptionRows:
    rng = np.random.default_rng(0)
    return OptionRows.of(rng.normal(size=(OPTIONS.sum(), 6)), OPTIONS)


def test_the_first_that_fit_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 100)
    own, made = Kept(), []

    def get(key: str, numbers: int) -> None:
        def make() -> dict[str, np.ndarray]:
            made.append(key)
            return {"x": np.zeros(numbers)}

        assert len(own.get(key, make)["x"]) == numbers

    for _ in range(2):
        get("a", 10)  # 80 bytes
        get("b", 3)  # 24 bytes more are too many
        get("c", 2)
    assert made == ["a", "b", "c", "b"]


def test_what_is_kept_cannot_be_written_to() -> None:
    found = Kept().get("a", lambda: {"x": np.zeros(3)})["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1.0


def test_a_kept_kernel_is_the_kernel(text: OptionRows) -> None:
    plain = TextKernel.fit(text, 5)
    own = KeptKernel(plain.landmarks)
    a = text.select(np.array([0, 2, 3]))
    b, c = a.select(np.array([1, 2])), text.select(np.array([2, 3]))
    wanted = plain.covariance(a, b)
    assert np.array_equal(own.covariance(a, b), wanted)
    assert own.covariance(a, c) is own.covariance(a, b)  # the same questions, however selected
    assert np.array_equal(own.covariance(b, a), plain.covariance(b, a))
    assert np.array_equal(own.covariance(text, text), plain.covariance(text, text))


def test_rows_have_the_variance_that_they_have_alone(text: OptionRows) -> None:
    kernel = TextKernel.fit(text, 5)
    some = text.select(np.array([4, 1])).select(np.array([1]))
    alone = OptionRows(some.directions, some.options)
    assert np.array_equal(kernel.variance(some), kernel.variance(alone))
    wider = TextKernel(kernel.landmarks, length=2.0)
    assert np.array_equal(wider.variance(some), wider.variance(alone))
    assert (wider.variance(some) < kernel.variance(some)).all()


def test_factors_are_unpacked_anew_where_they_have_changed(text: OptionRows) -> None:
    factors = first_factors(len(text), 2, 3, 5, generator(0, "loadings"))
    landmarks = TextKernel.fit(text, 5).landmarks
    sent = {**pack_factors(factors), "landmarks": landmarks}
    again = {name: array.copy() for name, array in sent.items()}  # as from another message
    own = Unpacked()
    first, kernel = own.factors(sent), own.kernel(sent)
    assert np.array_equal(first.mean, factors.mean)
    assert own.factors(again) is first
    assert own.kernel(again) is kernel
    other = replace(factors, mean=factors.mean + 1)
    assert np.array_equal(own.factors(pack_factors(other)).mean, factors.mean + 1)
    assert own.kernel({"landmarks": landmarks[:3]}) is not kernel
