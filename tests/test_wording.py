"""Words around numbers."""

import pytest

from pluralllm_app.core.wording import many


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1234, "1,234 runs")]
)
def test_a_noun_goes_with_its_number(count: int, said: str) -> None:
    assert many(count, "run") == said


def test_a_plural_that_is_not_the_noun_with_an_s() -> None:
    assert [many(count, "query", "queries") for count in (1, 2)] == ["1 query", "2 queries"]
