"""Suggestions for a mistyped name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the `known` names nearest to `name`, or with all if none is near.

    >>> did_you_mean("Germny", ["Germany", "Ghana", "Peru"])
    "did you mean 'Germany'?"
    >>> did_you_mean("x", ["b", "a"])
    "known are 'a', 'b'"
    """
    by_folded = {candidate.casefold(): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if near:
        return f"did you mean {', '.join(repr(by_folded[match]) for match in near)}?"
    shown = [repr(candidate) for candidate in sorted(by_folded.values())]
    rest = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"known are {', '.join(shown[:12])}{rest}"
