"""The text kernel between option rows, in memory and time linear in the rows.

k(r, r') = exp(-|q_r - q_r'|^2 / 2 l^2) exp(-|o_r - o_r'|^2 / 2 l^2): an RBF over the direction q of
the question's mean embedding times an RBF over the direction o of the option's deviation from it.
It is then projected, question by question, on what leaves the sum of the options' values as it is:
what one option gains the others lose.

`covariance` is exact, for the few rows of a context. For a whole survey, `features` are a Nystroem
approximation (Williams and Seeger 2001): phi_r . phi_r' is k seen through a few landmark rows. A
block-wise Cholesky factorisation picks them in proportion to what is not explained yet (Chen et al.
2023, arXiv 2207.06503), at evenly spread places of its cumulative sum: nothing is drawn at random.

Names of dimensions: R rows, Q questions, D embedding, M landmarks.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.segments import (
    Doubles,
    Floats,
    Ints,
    segment_centred,
    segment_rows,
    segment_starts,
)

CHUNK = 4096  # rows whose directions, or kernel with the landmarks, are worked on at once
CANDIDATES = 10_000  # rows among which landmarks are picked, evenly spread, at most
NEGLIGIBLE = 2e-3  # of a row's norm: a shorter deviation is rounding of float16, without direction
EXHAUSTED = 1e-6  # variance left unexplained at which more landmarks add nothing
BLOCK = 50  # landmarks that are picked at once
REDUNDANT = 1e-3  # variance left of a row, given the others of its block, that is not worth it


@dataclass(frozen=True, eq=False)
class OptionRows:
    """Option rows as the kernel sees them, the options of a question one after the other."""

    directions: Floats  # [R, 2 D] of question and option, of length 1, or 0 where there is none
    options: Ints  # [Q] option counts, summing to R
    whole: "OptionRows | None" = None  # that these were selected from
    places: Ints | None = None  # [R] of these in `whole`
    variances: dict[float, Doubles] = field(default_factory=dict)
    """[R] the kernel's diagonal by its length-scale: of all rows once, not for each selection."""

    @classmethod
    def of(cls, embeddings: NDArray[np.floating], options: Ints) -> "OptionRows":
        """Directions of option embeddings [R, D].

        A question's is that of the mean of its options' embeddings, an option's that of its
        deviation from this mean. An embedding of zero, or one alike for all options of a question,
        has no direction: the vector is 0, at the same distance from all others.
        """
        directions = np.empty((len(embeddings), 2 * embeddings.shape[1]), np.float32)
        ends = np.cumsum(options)
        first = 0
        while first < len(options):  # whole questions, about CHUNK rows at once
            start = ends[first] - options[first]
            last = max(int(np.searchsorted(ends, start + CHUNK, side="right")), first + 1)
            part, counts = slice(start, ends[last - 1]), options[first:last]
            x = embeddings[part].astype(np.float64)
            mean = np.add.reduceat(x, segment_starts(counts)) / counts[:, None]
            mean = np.repeat(mean, counts, axis=0)
            least = NEGLIGIBLE * np.linalg.norm(x, axis=1, keepdims=True)
            directions[part] = np.hstack([_unit(mean, 0.0), _unit(x - mean, least)])
            first = last
        return cls(directions, options)

    def __len__(self) -> int:
        return len(self.directions)

    def select(self, positions: Ints) -> "OptionRows":
        """The rows of the questions at `positions`."""
        options = self.options[positions]
        flat = segment_rows(segment_starts(self.options)[positions], options)
        if self.whole is None or self.places is None:
            return OptionRows(self.directions[flat], options, self, flat)
        return OptionRows(self.directions[flat], options, self.whole, self.places[flat])

    @property
    def dim(self) -> int:
        """D."""
        return int(self.directions.shape[1]) // 2

    @property
    def counts(self) -> Ints:
        """[R] number of options of each row's question."""
        return np.repeat(self.options, self.options)


def _unit(x: Doubles, least: Doubles | float) -> Doubles:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Doubles = np.divide(x, norm, out=np.zeros_like(x), where=norm > least)
    return unit


@dataclass(frozen=True, eq=False)
class TextKernel:
    """The kernel, and the landmarks of its approximation."""

    landmarks: Floats  # [M, 2 D] directions of the landmark rows
    length: float = 1.0  # length-scale of both factors

    @classmethod
    def fit(cls, rows: OptionRows, count: int, length: float = 1.0) -> "TextKernel":
        """Pick at most about `count` landmarks among `rows`, in the order of their use."""
        every = max(1, -(-len(rows) // CANDIDATES))
        some = rows.select(np.arange(0, len(rows.options), every))  # of whole questions
        candidates = some.directions.astype(np.float64)
        squares = _squares(candidates)
        left = np.ones(len(candidates))  # variance that the landmarks do not explain yet
        room = np.empty((min(count, len(candidates)) + BLOCK, len(candidates)))
        columns = room[:0]
        picked = np.zeros(0, np.int64)
        while len(picked) < count and left.sum() > EXHAUSTED * len(left):
            evenly = (np.arange(BLOCK) + 0.5) / BLOCK * left.sum()
            block = np.unique(np.searchsorted(np.cumsum(left), evenly))
            among = _rbf(candidates[block], candidates[block], length)
            among -= columns[:, block].T @ columns[:, block]
            block = block[_independent(among)]
            if not len(block):
                break
            found = _rbf(candidates[block], candidates, length, squares)
            found -= columns[:, block].T @ columns
            root = np.linalg.cholesky(found[:, block] + EXHAUSTED * np.eye(len(block)))
            found = np.linalg.solve(root, found)
            left = np.maximum(left - (found**2).sum(0), 0.0)
            left[block] = 0.0
            room[len(picked) : len(picked) + len(block)] = found
            picked = np.concatenate([picked, block])
            columns = room[: len(picked)]
        return cls(some.directions[picked[:count]], length)

    def first(self, count: int) -> "TextKernel":
        """The kernel with its first landmarks alone, whose features are the first of all."""
        return TextKernel(self.landmarks[:count], self.length)

    def covariance(self, a: OptionRows, b: OptionRows) -> Doubles:
        """The projected kernel [A, B] between two sets of whole questions."""
        between = _rbf(a.directions, b.directions, self.length)
        return segment_centred(segment_centred(between, a.options).T, b.options).T

    def within(self, rows: OptionRows) -> dict[int, tuple[Ints, Doubles]]:
        """The projected kernel of each question with itself.

        Returns:
            By option count n: rows [q, n] of the questions that have it, their kernels [q, n, n].
        """
        starts = segment_starts(rows.options)
        blocks = {}
        for n in np.unique(rows.options):
            index = starts[rows.options == n][:, None] + np.arange(n)
            parts = []
            for part in np.array_split(index, -(-index.size // CHUNK)):
                x = rows.directions[part].astype(np.float64)
                square = (x**2).sum(-1)
                distance = square[:, :, None] + square[:, None] - 2 * x @ x.transpose(0, 2, 1)
                k = np.exp(-np.maximum(distance, 0.0) / (2 * self.length**2))
                k = k - k.mean(1, keepdims=True)
                parts.append(k - k.mean(2, keepdims=True))
            blocks[int(n)] = index, np.concatenate(parts)
        return blocks

    def variance(self, rows: OptionRows) -> Doubles:
        """The diagonal [R] of `covariance(rows, rows)`."""
        if rows.whole is not None:
            return self.variance(rows.whole)[rows.places]
        if self.length not in rows.variances:
            variance = np.empty(len(rows))
            for index, block in self.within(rows).values():
                variance[index] = np.maximum(np.einsum("qii->qi", block), 0.0)
            variance.setflags(write=False)
            rows.variances[self.length] = variance
        return rows.variances[self.length]

    def features(self, rows: OptionRows) -> Doubles:
        """phi [R, M], with phi phi^T close to `covariance(rows, rows)`."""
        phi = np.empty((len(rows), len(self.landmarks)))
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            phi[part] = _rbf(rows.directions[part], self.landmarks, self.length) @ self._inverse
        return segment_centred(phi, rows.options)

    @cached_property
    def _inverse(self) -> Doubles:
        """[M, M] of the root of the landmarks' kernel."""
        landmarks = self.landmarks.astype(np.float64)  # in float32 it may not be positive definite
        inner = _rbf(landmarks, landmarks, self.length)
        root = np.linalg.cholesky(inner + EXHAUSTED * np.eye(len(inner)))
        inverse: Doubles = np.linalg.inv(root).T
        return inverse


def _squares(x: Floats | Doubles) -> Floats | Doubles:
    """|x|^2 [R] of rows [R, D]."""
    squares: Floats | Doubles = np.einsum("rd,rd->r", x, x)
    return squares


def _rbf(
    a: Floats | Doubles,
    b: Floats | Doubles,
    length: float,
    of_b: Floats | Doubles | None = None,
) -> Doubles:
    """exp(-|a - b|^2 / 2 l^2) between rows of `a` [A, D] and `b` [B, D].

    `of_b` is `_squares(b)`, where it is known already.
    """
    squares = _squares(a)[:, None] + (_squares(b) if of_b is None else of_b)
    distance = np.maximum(squares.astype(np.float64) - 2 * (a @ b.T), 0.0)
    kernel: Doubles = np.exp(-distance / (2 * length**2))
    return kernel


def _independent(covariance: Doubles) -> Ints:
    """Which rows, by their covariance [B, B], the ones before them do not explain."""
    root = np.linalg.cholesky(covariance + EXHAUSTED * np.eye(len(covariance)))
    return np.flatnonzero(np.diag(root) ** 2 > REDUNDANT)
