"""Flat arrays in consecutive segments, for example one per question with an entry per option."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Halves = NDArray[np.float16]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


def segment_starts(lengths: Ints) -> Ints:
    """Return where each segment begins, [n].

    >>> segment_starts(np.array([2, 0, 3]))
    array([0, 2, 2])
    """
    starts: Ints = np.cumsum(lengths) - lengths
    return starts


def segment_rows(first: Ints, lengths: Ints) -> Ints:
    """Concatenate the ranges ``first[i] : first[i] + lengths[i]``.

    >>> segment_rows(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    rows: Ints = np.arange(int(lengths.sum())) + np.repeat(first - segment_starts(lengths), lengths)
    return rows


def segment_centred(values: Doubles, lengths: Ints) -> Doubles:
    """Subtract from `values` [R, ...] their mean over each segment; none may be empty.

    >>> segment_centred(np.array([1.0, 3.0, 5.0]), np.array([2, 1]))
    array([-1.,  1.,  0.])
    """
    if not len(lengths):
        return values
    sums = np.add.reduceat(values, segment_starts(lengths))
    shape = (-1, *[1] * (values.ndim - 1))
    centred: Doubles = values - np.repeat(sums / lengths.reshape(shape), lengths, axis=0)
    return centred


def segment_sums(values: Doubles | Bools, lengths: Ints) -> Doubles:
    """Sum the segments of flat `values`; an empty one sums to 0.

    >>> segment_sums(np.array([1.0, 2.0, 4.0]), np.array([2, 0, 1]))
    array([3., 0., 4.])
    """
    segments = np.repeat(np.arange(len(lengths)), lengths)
    sums: Doubles = np.bincount(segments, values, minlength=len(lengths)).astype(np.float64)
    return sums
