"""A language model behind an OpenAI-compatible API: log-probabilities of letters, or samples."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from pluralllm_app.core.environment import LOCAL
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import LETTERS_KIND, Answer
from pluralllm_app.judge.plan import Prompt
from pluralllm_app.judge.server import RefusedError, Server
from pluralllm_app.use.prompts import chosen, labels

SIDE_BY_SIDE = 8  # requests
SAMPLES = 10  # of each prompt, where there are no log-probabilities
TOKENS = 64  # of a sampled answer
LISTED = (20, 5)  # how many of the likeliest tokens a server may be ready to list
_SPACES = " \t\n\u2581\u0120\u010a"  # also as tokenizers write them
_LENGTHS = ("max_tokens", "max_completion_tokens")  # what a server may call the longest answer


@dataclass(frozen=True)
class _Form:
    """How this server takes requests."""

    listed: int  # tokens; 0: answers are sampled
    length: str = _LENGTHS[0]
    several: bool = True  # whether one request may ask for several samples


class Endpoint:
    """A model that a server runs."""

    def __init__(self, address: str, key: str | None, samples: int | None) -> None:
        """Take an address; nothing is asked yet.

        Args:
            address: of the API, as http://localhost:8000/v1, of its /completions for a model that
                is no chat model; with the model's name after a # where there are several.
            key: to be shown to the server.
            samples: how many answers are sampled for each prompt; None: log-probabilities where the
                server gives them, or else SAMPLES.

        Raises:
            UserError: it is no such address.
        """
        base, _, self._model = address.partition("#")
        self._base, self.completions = _read_address(base)
        path = "/completions" if self.completions else "/chat/completions"
        self._address = self._base + path
        self._server = Server(key)
        self._samples = samples or SAMPLES
        sampled = f"{self._samples} samples"
        self.kinds = [sampled] if samples else [LETTERS_KIND, sampled]
        self._form = _Form(0)
        host = urlsplit(self._base).hostname
        self.key_in_the_clear = bool(key) and base.startswith("http:") and host not in LOCAL

    @property
    def name(self) -> str:
        """The model's name; the server is asked for it where none was given."""
        if not self._model:
            self._model = self._only_model()
        return self._model

    @property
    def identity(self) -> str:
        """The address and the model's name."""
        return f"{self._address}#{self.name}"

    def connect(self, first: Prompt) -> str:
        """Find out in which form the server takes requests, by asking the first prompt."""
        refusal: RefusedError | None = None
        forms = [_Form(listed) for listed in (*LISTED, 0)] if len(self.kinds) > 1 else [_Form(0)]
        for form in forms:
            for length in _LENGTHS:
                self._form = _Form(form.listed, length)
                try:
                    if self._works(first):
                        return self.kinds[0] if form.listed else self.kinds[-1]
                    break
                except RefusedError as error:
                    refusal = error
                    if _LENGTHS[1] not in str(error):
                        break
        assert refusal is not None  # sampling works, or is refused
        other = "chat/completions" if self.completions else "completions"
        raise UserError(
            f"{refusal}. See that the model's name is right ({self.name!r}), and whether it has "
            f"{self._base}/{other} instead"
        ) from refusal

    def ask(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """Ask, several prompts side by side.

        Once one fails, what is under way still counts, and nothing new is asked.
        """
        waiting: SimpleQueue[int] = SimpleQueue()
        found: SimpleQueue[tuple[int, Answer | Exception]] = SimpleQueue()
        for place in range(len(prompts)):
            waiting.put(place)

        def work() -> None:
            answer = self._letters if self._form.listed else self._sampled
            while (place := _next(waiting)) is not None:
                try:
                    found.put((place, answer(prompts[place])))
                except Exception as error:
                    found.put((place, error))

        # Daemons, so that nobody waits for a server's answer after Ctrl-C.
        for _ in range(min(SIDE_BY_SIDE, len(prompts))):
            threading.Thread(target=work, daemon=True).start()
        left, failure = len(prompts), None
        try:
            while left:
                place, answer = found.get()
                left -= 1
                if not isinstance(answer, Exception):
                    yield place, answer
                elif failure is None:
                    failure = answer
                    self._server.stop()
                    left -= _emptied(waiting)
        finally:
            self._server.stop()
            _emptied(waiting)
        if failure is not None:
            raise failure

    def way(self, kind: str) -> str:
        """How its answers are had."""
        if kind == LETTERS_KIND:
            return "the log-probabilities of the letters as the first token of the answer"
        return f"{kind} of each order of options, at temperature 1"

    def _works(self, prompt: Prompt) -> bool:
        """Whether the server gives what the form asks for."""
        if self._form.listed:
            found = self._choices(self._content(prompt, 1, 1))[0].get("logprobs")
            return isinstance(found, dict) and any(map(found.get, ("content", "top_logprobs")))
        try:
            self._choices(self._content(prompt, TOKENS, 2))
        except RefusedError:
            self._form = _Form(0, self._form.length, several=False)
            self._choices(self._content(prompt, TOKENS, 1))
        return True

    def _letters(self, prompt: Prompt) -> Answer:
        choice = self._choices(self._content(prompt, 1, 1))[0]
        letters = labels(len(prompt.question.options))
        named = dict.fromkeys(letters, 0.0)
        for token, logarithm in self._first_token(choice):
            if (letter := token.strip(_SPACES)) in named:
                named[letter] += math.exp(logarithm)
        return self._checked(list(named.values()), 1.0)

    def _sampled(self, prompt: Prompt) -> Answer:
        named = [0.0] * len(prompt.question.options)
        left = self._samples
        while left:
            wanted = left if self._form.several else 1
            choices = self._choices(self._content(prompt, TOKENS, wanted))[:left]
            left -= len(choices)
            for choice in choices:
                if (place := chosen(self._text(choice), prompt.question)) is not None:
                    named[place] += 1
        return self._checked(named, float(self._samples))

    def _content(self, prompt: Prompt, tokens: int, count: int) -> dict[str, Any]:
        content: dict[str, Any] = {"model": self.name, "temperature": 1, self._form.length: tokens}
        if count > 1:
            content["n"] = count
        if self.completions:
            listed = {"logprobs": self._form.listed}
            content["prompt"] = prompt.text
        else:
            listed = {"logprobs": True, "top_logprobs": self._form.listed}
            content["messages"] = [{"role": "user", "content": prompt.text}]
        return content | (listed if self._form.listed else {})

    def _choices(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self._server.post(self._address, content)
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not all(map(_is_object, choices)):
            raise self._nonsense("it has no choices")
        return choices

    def _first_token(self, choice: Mapping[str, Any]) -> list[tuple[str, float]]:
        """The likeliest first tokens of an answer, with their log-probabilities."""
        found = choice.get("logprobs")
        try:
            if not isinstance(found, dict):
                raise TypeError("no log-probabilities, which it gave before")
            if found.get("content") is not None:  # of the chat API, and of some servers for both
                listed = found["content"][0]["top_logprobs"] if found["content"] else []
                pairs = [(each["token"], each["logprob"]) for each in listed]
            else:
                pairs = list(found["top_logprobs"][0].items()) if found["top_logprobs"] else []
            return [(_text(token), _logarithm(value)) for token, value in pairs]
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise self._nonsense(f"its log-probabilities are malformed: {error!r}") from error

    def _text(self, choice: Mapping[str, Any]) -> str:
        message = choice if self.completions else choice.get("message")
        if not isinstance(message, dict):
            raise self._nonsense("a choice has no message")
        text = message.get("text" if self.completions else "content")
        if not isinstance(text, str | None):
            raise self._nonsense("a choice has no text")
        return text or ""

    def _checked(self, named: Sequence[float], total: float) -> Answer:
        try:
            return Answer.checked(named, total, len(named))
        except ValueError as error:
            raise self._nonsense(str(error)) from error

    def _nonsense(self, what: str) -> UserError:
        other = ", or sample its answers with --samples" if self._form.listed else ""
        return UserError(
            f"{self._address} gives an answer that cannot be used ({what}): see that it speaks "
            f"OpenAI's API{other}"
        )

    def _only_model(self) -> str:
        try:
            listed = self._server.get(f"{self._base}/models").get("data")
            names = [str(each["id"]) for each in listed]  # type: ignore[union-attr]
        except (RefusedError, TypeError, LookupError) as error:
            raise UserError(
                f"{self._base} does not list its models: give the name of one after a #, as "
                f"{self._base}#NAME"
            ) from error
        if len(names) != 1:
            raise UserError(
                f"{self._base} has {len(names)} models: give the name of one after a #, as "
                f"{self._base}#{names[0] if names else 'NAME'}; {did_you_mean('', names)}"
            )
        return names[0]


def _read_address(text: str) -> tuple[str, bool]:
    """The base of an API, and whether it is its /completions that was named."""
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise UserError(f"--model {text!r} is no address ({error})") from error
    if parts.username or parts.password:
        raise UserError(
            "--model has a name or a password in its address, which would be shown: leave it out, "
            "and put a key into $PLURALLLM_MODEL_KEY"
        )
    if not good or parts.query:
        raise UserError(
            f"--model {text!r} is no address of an API: give one as http://host:8000/v1"
        )
    base = text.rstrip("/")
    for ending, completions in (("/chat/completions", False), ("/completions", True)):
        if base.endswith(ending):
            return base.removesuffix(ending), completions
    return base, False


def _next(waiting: "SimpleQueue[int]") -> int | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _emptied(waiting: "SimpleQueue[int]") -> int:
    """Take all out of a queue; returns how many there were."""
    count = 0
    while _next(waiting) is not None:
        count += 1
    return count


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the token {value!r}")
    return value


def _logarithm(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"the log-probability {value!r}")
    if math.isnan(value) or value > 1e-3:
        raise ValueError(f"the log-probability {value}")
    return min(float(value), 0.0)
