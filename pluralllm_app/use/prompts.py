"""A question as a prompt for a language model, and which option a completion names."""

import re
from functools import lru_cache

from pluralllm_app.core.names import clean_text
from pluralllm_app.use.questions import Question, words

QUESTION = "Question: "
CLOSING = "Answer with the letter of one option.\nAnswer:"
MOST_CHARACTERS = 10_000  # of an answer: longer ones name no option
_THOUGHT = "</think>"
_OPENING = re.compile(
    r"(?:(?:(?:the|my) )?(?:final )?answer(?: is)?\b[\s:]*)?(?:option\b[\s:]*)?", re.IGNORECASE
)
_BETWEEN = re.compile(r"[,/;&]|\band\b|\bor\b", re.IGNORECASE)
_BLOCK = re.compile(
    rf"^{QUESTION}(?P<text>.+)\n(?P<options>(?:[A-Z]+\. .+\n)+){re.escape(CLOSING)}", re.MULTILINE
)


def labels(count: int) -> list[str]:
    """The letters of `count` options: A, B, ... Z, AA, AB, ..."""
    found = []
    for number in range(1, count + 1):
        label = ""
        while number:
            number, letter = divmod(number - 1, 26)
            label = chr(ord("A") + letter) + label
        found.append(label)
    return found


def rendered(question: Question) -> str:
    """The prompt that asks a question; `read_prompt` reads it again.

    >>> print(rendered(Question("Should libraries open on Sundays?", ["Yes", "No"])))
    Question: Should libraries open on Sundays?
    A. Yes
    B. No
    Answer with the letter of one option.
    Answer:
    """
    question.check()
    lines = [f"{QUESTION}{question.text}"]
    lines += [
        f"{label}. {option}"
        for label, option in zip(labels(len(question.options)), question.options, strict=True)
    ]
    return "\n".join([*lines, CLOSING])


def read_prompt(prompt: str) -> Question | None:
    """The question that a prompt asks in the form of `rendered`; None where it asks none.

    Anything may stand around it, such as a persona or the marks of a chat template. Of several
    questions it is the last one, since those before it are examples.
    """
    blocks = list(_BLOCK.finditer(prompt))
    if not blocks:
        return None
    block = blocks[-1]
    lines = block["options"].rstrip("\n").split("\n")
    options = [line.partition(". ") for line in lines]
    if len(lines) < 2 or [label for label, _, _ in options] != labels(len(lines)):
        return None
    return Question(block["text"], [option for _, _, option in options])


def spoken(completion: str) -> str:
    """What a completion says after its thoughts, if it tells any (`<think> ... </think>`)."""
    return completion.rpartition(_THOUGHT)[2]


def chosen(completion: str, question: Question) -> int | None:
    """The place of the option that a completion names; None unless it names exactly one."""
    named = named_options(completion, question)
    return named[0] if len(named) == 1 else None


def named_options(completion: str, question: Question) -> list[int]:
    """The places of all options that a completion names, in ascending order.

    A line names an option where it holds nothing but its letter, its text, or both, whatever the
    case and punctuation, after "Answer" or "The answer is" or not; and several where it holds
    several of these, as "A or B". Other lines name none: a word in a sentence is no choice. What
    stands before the end of a thought (`</think>`) is not looked at, and of an answer with more
    than `MOST_CHARACTERS` nothing is.
    """
    answer = spoken(completion)
    if len(answer) > MOST_CHARACTERS or "<think>" in answer:
        return []
    known = _Forms.of(question)
    return sorted({place for line in set(answer.splitlines()) for place in known.named(line)})


class _Forms:
    """The forms in which each option of a question can be named."""

    def __init__(self, question: Question) -> None:
        self._plain = list(zip(labels(len(question.options)), question.options, strict=True))
        self._by_words: dict[str, set[int]] = {}
        for place, (label, option) in enumerate(self._plain):
            for form in (label, option, f"{label}. {option}"):
                self._by_words.setdefault(words(form), set()).add(place)

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(question: Question) -> "_Forms":
        return _Forms(question)

    def named(self, line: str) -> set[int]:
        """The places of the options that a line names."""
        text = clean_text(line).strip("*_`\"' ")
        rest = text[_OPENING.match(text).end() :]  # type: ignore[union-attr]  # matches ""
        if whole := self._named(text) or self._named(rest):
            return whole
        each = [self._named(part) for part in _BETWEEN.split(rest) if part.strip()]
        return set.union(*each) if each and all(each) else set()

    def _named(self, text: str) -> set[int]:
        found = self._by_words.get(words(text), set())
        if len(found) > 1:  # texts that differ by punctuation: "Yes" and "Yes!"
            exactly = {place for place in found if text in self._plain[place]}
            return exactly or found
        return found
