"""What a model answers to a prompt, and the shares of options that follow from its answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.segments import Doubles
from pluralllm_app.judge.plan import Place, Prompt

LETTERS_KIND = "log-probabilities"
ROUNDING = 1e-3  # of a sum of probabilities, whose logarithms some servers round


@dataclass(frozen=True)
class Answer:
    """How a model answers one prompt."""

    named: tuple[float, ...]  # by letter: its probability, or how many samples name it
    total: float  # 1, or how many samples there are: what names no option counts too

    @classmethod
    def checked(cls, named: Sequence[float], total: float, options: int) -> "Answer":
        """Make one of numbers that came from elsewhere.

        Raises:
            ValueError: they are no probabilities of so many options, or counts.
        """
        numbers = [float(number) for number in named]
        if len(numbers) != options:
            raise ValueError(f"{len(numbers)} numbers for {options} options")
        if not all(map(math.isfinite, [*numbers, total])) or min(numbers) < 0 or total <= 0:
            raise ValueError(f"{[*numbers, total]} are no probabilities")
        if sum(numbers) > total * (1 + ROUNDING):
            raise ValueError(f"the probabilities of options sum to {sum(numbers):.4g}")
        return cls(tuple(numbers), float(total))


class Model(Protocol):
    """A language model that can be asked."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def kinds(self) -> Sequence[str]:
        """The ways in which it may be asked, the best first."""

    @property
    def identity(self) -> str:
        """What tells it from all others: answers are kept under it."""

    def connect(self, first: Prompt) -> str:
        """Get ready, and say which of `kinds` it is.

        Raises:
            UserError: it cannot be had.
        """

    def ask(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """Yield the answer to each prompt with its index, as they come.

        Raises:
            UserError: it stops to answer, or answers nonsense.
        """

    def way(self, kind: str) -> str:
        """How its answers are had, in a sentence."""


@dataclass(frozen=True, eq=False)
class Distributions:
    """What a model answers as one persona: shares of the options of each question."""

    shares: Mapping[int, Doubles]  # by question, in the survey's order; only where it names some
    named: float  # part of its answers that name an option, mean over all prompts
    moved: float  # mean JS distance of the answer to one order from that to all orders
    silent: float  # part of the letters with nothing at all, mean over all prompts


def distributions(answers: Mapping[Place, Answer]) -> dict[str | None, Distributions]:
    """Put the answers to all orders of each question together, by persona.

    Of each order the options that are named make shares, and these are averaged. A question one of
    whose orders gets no option at all has no shares.
    """
    by_persona: dict[str | None, dict[int, list[tuple[int, Answer]]]] = {}
    for place, answer in answers.items():
        turns = by_persona.setdefault(place.persona, {}).setdefault(place.question, [])
        turns.append((place.turn, answer))
    return {persona: _together(turns) for persona, turns in by_persona.items()}


def _together(questions: Mapping[int, Sequence[tuple[int, Answer]]]) -> Distributions:
    shares: dict[int, Doubles] = {}
    moved: list[float] = []
    each = [answer for turns in questions.values() for _, answer in turns]
    named = [sum(answer.named) / answer.total for answer in each]
    silent = [answer.named.count(0) / len(answer.named) for answer in each]
    for index, turns in questions.items():
        if any(sum(answer.named) <= 0 for _, answer in turns):
            continue
        rows = np.array([np.roll(answer.named, turn) for turn, answer in turns], np.float64)
        rows /= rows.sum(axis=1, keepdims=True)
        mean = rows.mean(axis=0)
        options = np.full(len(rows), rows.shape[1])
        distance = np.sqrt(js_divergence(rows.ravel(), np.tile(mean, len(rows)), options))
        moved.append(float(distance.mean()))
        shares[index] = mean
    return Distributions(
        shares,
        named=float(np.mean(named)),
        moved=float(np.mean(moved)) if moved else math.nan,
        silent=float(np.mean(silent)),
    )
