"""Questions by their texts, and how one that a user names is found among those of a survey."""

import difflib
import heapq
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.wording import many
from pluralllm_app.errors import AnswersError
from pluralllm_app.survey.content import Questions
from pluralllm_app.use.spelling import Spelling

_SIGNS = "#%&@*"
_MINUS = re.compile(r"(?<!\w)[-\u2010\u2011\u2013](?=[.,]?\d)")
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
        options = (self.options,) if isinstance(self.options, str) else self.options
        object.__setattr__(self, "text", clean_text(str(self.text)))
        object.__setattr__(self, "options", tuple(clean_text(str(option)) for option in options))

    @property
    def key(self) -> object:
        """What is equal for two of one question: the order of options does not matter."""
        return self.id or (self.text, frozenset(self.options))

    def option(self, name: object) -> str | None:
        """The option of this name, also if it is typed a little differently; None: there is none.

        Raises:
            AnswersError: it may be one of several.
        """
        text = clean_text(str(name))
        if text in self.options:
            return text
        alike = [option for option in self.options if words(option) == words(text)]
        if len(alike) > 1:
            raise AnswersError(
                f"{named(self)}: the option {text!r} may be {' or '.join(map(repr, alike))}: write "
                "it as it stands there"
            )
        return alike[0] if alike else None

    def lacks(self, names: Iterable[object]) -> list[str]:
        """Which of some options it does not have."""
        return [str(name) for name in names if self.option(name) is None]

    def check(self) -> None:
        """Raise AnswersError unless it can be asked: a text, and two different options."""
        if not self.text:
            raise AnswersError("a question has no text: give one")
        for text in (self.text, *self.options):
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise AnswersError(
                    f"{named(self)} has {shorten(text, 80)!r}, which holds half of a character: "
                    "read the text anew where it comes from"
                )
        if len(self.options) < 2:
            raise AnswersError(
                f"{named(self)} has {many(len(self.options), 'option')}: give it at least two"
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


def told(question: Question) -> str:
    """The options of a question, for messages."""
    return shorten(", ".join(map(repr, question.options)), 200)


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

    def find(self, asked: object, options: Sequence[str] | None, notes: list[str]) -> int | None:
        """The place of a question in the survey; None where it is not there.

        A text that differs in capitals, punctuation or spaces is taken for the same, and noted.

        Args:
            asked: an id, a text or a question.
            options: those that it must have, in any order, where they are known.
            notes: where to say so.

        Raises:
            AnswersError: an id is unknown and there is no text, or it is that of a question with
                another text or other options; or several questions have this text and the options
                do not tell which.
        """
        text, id_ = str(asked), str(asked)
        if isinstance(asked, Question):
            text, id_, options = asked.text, asked.id or "", asked.options or options
        if id_ not in self._by_id:
            if not text and id_:
                raise AnswersError(
                    f"no question of the survey has the id {id_!r}: "
                    + did_you_mean(id_, filter(None, self._by_id))
                )
            return self._find_text(clean_text(text), options, notes)
        place = self._by_id[id_]
        found = self.questions[place]
        if text not in ("", id_) and words(text) != words(found.text):
            raise AnswersError(
                f"the id {id_!r} is that of the survey's {named(found)}, and not of "
                f"{shorten(text, 80)!r}: correct one of them"
            )
        if lacking := found.lacks(options or ()):
            raise AnswersError(
                f"{named(found)} has no option {lacking[0]!r}: "
                + did_you_mean(lacking[0], found.options)
            )
        return place

    def _find_text(self, text: str, options: Sequence[str] | None, notes: list[str]) -> int | None:
        every = self.with_text(text)
        places = [place for place in every if not self.questions[place].lacks(options or ())]
        if len(places) > 1 or (len(every) > 1 and not places):
            which = "none has all of these options" if not places else "give its options as well"
            shown = "; ".join(
                f"{self.questions[place].id} ({told(self.questions[place])})" for place in every[:5]
            )
            raise AnswersError(
                f"{len(every)} questions of the survey have the text {shorten(text, 80)!r}, and "
                f"{which}: name one by its id: {shown}"
            )
        if not places:
            return None
        found = self.questions[places[0]]
        if found.text != text:
            notes.append(
                f"{shorten(text, 80)!r} was read as the survey's {shorten(found.text, 80)!r}"
            )
        return places[0]

    def with_text(self, text: str) -> list[int]:
        """The places of the questions with this text, or with one that is typed differently."""
        text = clean_text(text)
        return self._by_text.get(text) or self._by_words.get(words(text), [])

    def misspelt(self, text: str) -> str | None:
        """The id or text of the survey that `text` is, but for some letters; None: of none."""
        return self._spelling.text(words(text)) or self._spelling.id(clean_text(text))

    @cached_property
    def _spelling(self) -> Spelling:
        texts = {key: self.questions[places[0]].text for key, places in self._by_words.items()}
        return Spelling([question.id or "" for question in self.questions], texts)

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
    """A text without what people type differently: capitals, punctuation, spaces.

    Signs stay, since they tell options apart: "+1" and "-1", "< 50 %" and "> 50 %", "C" and "C#".

    >>> words('"Very" good, (>5)'), words("-1")
    ('very good >5', '\u22121')
    """
    cleaned = _MINUS.sub("\u2212", clean_text(text).casefold())
    kept = "".join(char if _tells(char) else " " for char in cleaned)
    return " ".join(kept.split()) or clean_text(text)


def _tells(char: str) -> bool:
    return char in _SIGNS or unicodedata.category(char)[0] in "LMNS"
