"""How many random examples a test sees."""

from typing import Any

from hypothesis import settings


def at_most(examples: int, **others: Any) -> settings:
    """Settings with so many examples, or fewer where the chosen profile has fewer for all."""
    return settings(max_examples=min(examples, settings().max_examples), **others)
