"""Words around numbers."""


def many(count: int, noun: str, several: str = "") -> str:
    """A number with its noun; `several` is the plural where that is not the noun with an s.

    >>> many(1, "run"), many(2, "run"), many(1234, "process", "processes")
    ('1 run', '2 runs', '1,234 processes')
    """
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"
