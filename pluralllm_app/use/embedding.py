"""New texts as vectors, by the embedder that the survey's questions were embedded with."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.console import Console

from pluralllm_app.core.segments import Floats, Halves
from pluralllm_app.errors import MissingPartError, PredictorError, SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.alike import alike
from pluralllm_app.survey.embedders.names import is_same, place_of, shown
from pluralllm_app.survey.embedders.registry import EMBEDDERS
from pluralllm_app.survey.shared import About
from pluralllm_app.use.questions import Question

if TYPE_CHECKING:
    from pluralllm_app.survey.embedders.base import Embedder

Key = TypeVar("Key")
Value = TypeVar("Value")
KEPT = 10_000  # questions and descriptions whose vectors are kept


class Texts:
    """Embeds new questions and descriptions; each text once, as long as there is room.

    The embedder is loaded when it is first needed, since a sentence embedder takes seconds.
    """

    def __init__(self, about: About, dim: int, embedder: str | None) -> None:
        """Prepare to embed.

        Args:
            about: the survey, whose embedder and template are those to use.
            dim: of its vectors.
            embedder: name or path of the embedder, where the survey's name for it does not tell
                where it is.
        """
        self._about = about
        self._dim = dim
        self._name = embedder
        self._embedder: Embedder | None = None
        self._closed: str | None = None
        self._questions: OrderedDict[Question, Halves] = OrderedDict()
        self._descriptions: OrderedDict[str, Floats] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether the embedder is loaded, or is so at once."""
        return self._embedder is not None or self._about.embedder in EMBEDDERS

    def forget(self) -> None:
        """Drop the vectors that are kept."""
        self._questions, self._descriptions = OrderedDict(), OrderedDict()

    def close(self, reason: str) -> None:
        """Load no embedder from now on: what needs one is refused, for this reason."""
        self._closed = reason

    def questions(self, questions: Sequence[Question]) -> list[Halves]:
        """A vector for each option of each of `questions`: float16 [options, dim].

        Raises:
            PredictorError: the embedder cannot be had, or is another one than the survey's.
            SurveyError: it cannot embed the texts, or tell the options of one apart.
        """
        # Looked up once each: another thread may drop one from the cache meanwhile.
        kept = {each: self._questions.get(each) for each in questions}
        found = {each: vectors for each, vectors in kept.items() if vectors is not None}
        if new := [each for each in kept if each not in found]:
            embedded = dict(zip(new, self._embed(new), strict=True))
            _keep(self._questions, embedded)
            found |= embedded
        return [found[each] for each in questions]

    def description(self, text: str) -> Floats:
        """The vector of a text that says who a group is: float32 [dim].

        Raises:
            PredictorError: see `questions`.
        """
        vector = self._descriptions.get(text)
        if vector is None:
            vector = self._load("a description").describe([text])[0]
            _keep(self._descriptions, {text: vector})
        return vector

    def _embed(self, new: Sequence[Question]) -> list[Halves]:
        embedder = self._load("a new question")
        questions = Questions(
            ids=[shorten(each.text, 80) for each in new],  # as messages name them
            texts=[each.text for each in new],
            options=[each.options for each in new],
            values=[None] * len(new),
        )
        with TemporaryDirectory() as unfinished:
            rows = embedder.embed(questions, Console(quiet=True), Path(unfinished))
        count, example = alike(questions, rows)
        if count:
            raise PredictorError(
                f"the survey's embedder, {shown(embedder.name)}, has one vector for the options "
                f"{example}: word them in other ways"
            )
        return list(np.split(rows, np.cumsum(questions.counts)[:-1]))

    def _load(self, what: str) -> "Embedder":
        if self._embedder is None:
            if self._closed is not None:
                raise PredictorError(f"{what} needs the survey's embedder: {self._closed}")
            self._embedder = self._checked(what)
        return self._embedder

    def _checked(self, what: str) -> "Embedder":
        about = self._about
        place = self._name or place_of(about.embedder)
        still = "Questions of the survey need none, and can be predicted"
        if place is None:
            raise PredictorError(
                f"{what} needs the embedder of the survey, {shown(about.embedder)}: give the "
                f"directory of its files with `--embedder`, in Python as `embedder=`. {still}"
            )
        other = (
            f"the questions of the survey were embedded by {shown(about.embedder)}: vectors of "
            f"{place} do not compare. {still}"
        )
        if place in EMBEDDERS and place != about.embedder:
            raise PredictorError(other)
        # Not at the top: a sentence embedder takes torch and transformers.
        from pluralllm_app.survey.embedders.registry import load_embedder

        try:
            embedder = load_embedder(place, about.template)
        except (MissingPartError, SurveyError, OSError) as error:
            raise PredictorError(
                f"{what} needs the embedder {place}, which cannot be had here: {error}. {still}"
            ) from error
        if not is_same(about.embedder, embedder.name):
            raise PredictorError(f"{place} is {shown(embedder.name)}, and {other}")
        return embedder


def _keep(cache: OrderedDict[Key, Value], new: Mapping[Key, Value]) -> None:
    """Add to a cache, and drop what was added first where it gets too large."""
    cache.update(new)
    while len(cache) > KEPT:
        cache.popitem(last=False)
