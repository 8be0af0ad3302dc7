"""Questions by their texts, and how one that a user names is found among those of a survey."""

import difflib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import AnswersError
from pluralllm_app.survey.content import Questions

_NO_WORD = re.compile(r"[\W_]+")
LIKELY = 50  # texts that may be suggested
NEAR = 0.6  # of 1, how alike a text must be to be suggested


@dataclass(frozen=True)
class Question:
    """A question with its options.

    >>> Question("Is the economy in good shape?", ["Yes", "No"])
    Question(text='Is the economy in good shape?', options=('Yes', 'No'), id=None)
    """

    text: str
    options: Sequence[str]
    id: str | None = None  # in its survey; None for a question that is in no survey

    def __post_init__(self) -> None:
        text = clean_text(self.text)
        options = (self.options,) if isinstance(self.options, str) else self.options
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "options", tuple(clean_text(option) for option in options))

    def check(self) -> None:
        """Raise AnswersError unless it can be asked: a text, and two different options."""
        if not self.text:
            raise AnswersError("a question has no text: give one")
        if len(self.options) < 2:
            raise AnswersError(
                f"{named(self)} has {len(self.options)} option(s): give it at least two"
            )
        seen: dict[str, str] = {}
        for option in self.options:
            if not option:
                raise AnswersError(f"{named(self)} has an empty option: give it a text")
            if (other := seen.setdefault(option.casefold(), option)) != option:
                raise AnswersError(
                    f"{named(self)} has the options {other!r} and {option!r}, which differ by "
                    "capitals only: word them differently"
                )
        if len(seen) < len(self.options):
            twice = next(option for option in self.options if self.options.count(option) > 1)
            raise AnswersError(f"{named(self)} has the option {twice!r} twice: name it once")


def named(question: Question) -> str:
    """How messages name a question."""
    return f"question {shorten(question.text, 80)!r}"


class Catalogue:
    """The questions of a survey, to be found by id or text."""

    def __init__(self, questions: Questions) -> None:
        self.questions = [
            Question(text, options, id_)
            for id_, text, options in zip(
                questions.ids, questions.texts, questions.options, strict=True
            )
        ]
        self._by_id = {question.id: place for place, question in enumerate(self.questions)}
        self._by_text: dict[str, list[int]] = {}
        self._by_words: dict[str, list[int]] = {}
        for place, question in enumerate(self.questions):
            self._by_text.setdefault(question.text, []).append(place)
            self._by_words.setdefault(words(question.text), []).append(place)

    def __len__(self) -> int:
        return len(self.questions)

    def find(self, text: str, options: Iterable[str] | None, notes: list[str]) -> int | None:
        """The place of the question with this id or text; None where there is none.

        A text that differs in capitals, punctuation or spaces is taken for the same, and noted.

        Args:
            text: id or text.
            options: those that it must have, in any order, where they are known.
            notes: where to say so.

        Raises:
            AnswersError: several questions have this text, and `options` does not tell which.
        """
        if text in self._by_id:
            return self._by_id[text]
        text = clean_text(text)
        places = self._by_text.get(text) or self._by_words.get(words(text), [])
        if options is not None:
            wanted = {words(option) for option in options}
            places = [place for place in places if wanted <= self._options_of(place)]
        if len(places) > 1:
            ids = ", ".join(str(self.questions[place].id) for place in places[:5])
            raise AnswersError(
                f"{len(places)} questions of the survey have the text {shorten(text, 80)!r}: give "
                f"its options as well, or name one by its id ({ids})"
            )
        if not places:
            return None
        found = self.questions[places[0]]
        if found.text != text:
            notes.append(
                f"{shorten(text, 80)!r} was read as the survey's {shorten(found.text, 80)!r}"
            )
        return places[0]

    def _options_of(self, place: int) -> set[str]:
        return {words(option) for option in self.questions[place].options}

    def nearest(self, text: str) -> str:
        """A sentence that names the questions most like `text`, "" where none is like it."""
        wanted = set(words(text).split())
        # To compare letter by letter takes long: only with those that share the most words.
        likely = heapq.nlargest(
            LIKELY, self._by_words, key=lambda other: len(wanted.intersection(other.split()))
        )
        likely_texts = [self.questions[self._by_words[other][0]].text for other in likely]
        folded = {other.casefold(): other for other in likely_texts}
        near = difflib.get_close_matches(clean_text(text).casefold(), folded, n=2, cutoff=NEAR)
        if not near:
            return ""
        return "the nearest: " + ", ".join(repr(shorten(folded[match], 80)) for match in near)


def words(text: str) -> str:
    """A text without what people type differently: capitals, punctuation, spaces."""
    return _NO_WORD.sub(" ", clean_text(text).casefold()).strip() or clean_text(text)
