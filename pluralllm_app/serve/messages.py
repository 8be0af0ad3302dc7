"""What clients send and get, as JSON; the OpenAPI document is made of these."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pluralllm_app.serve.limits import (
    ANSWERS,
    ASKED,
    CHARACTERS,
    COMPLETIONS,
    NEW_QUESTIONS,
    OPTIONS,
    QUESTIONS,
)

Text = Annotated[str, Meta(max_length=CHARACTERS)]
Numbers = (
    Annotated[dict[Text, float], Meta(max_length=OPTIONS)]
    | Annotated[list[float], Meta(max_length=OPTIONS)]
)
Message = TypeVar("Message", bound=Struct)


class Refused(Exception):
    """A request that is not served, with its HTTP status.

    Args:
        status: of HTTP.
        text: why, and what to do.
        headers: of the response.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class AskedQuestion(Struct, forbid_unknown_fields=True):
    """A question with its options: a new one, or one of the survey whose text several have."""

    text: Text
    options: Annotated[list[Text], Meta(max_length=OPTIONS)]


Asked = Annotated[list[Text | AskedQuestion], Meta(min_length=1, max_length=QUESTIONS)]


class Known(Struct, forbid_unknown_fields=True):
    """What is known of a group. Without anything, the average of all groups is predicted."""

    answers: Annotated[
        dict[Text, Numbers],
        Meta(
            max_length=ANSWERS,
            description="By id or text of the question: a share, a percentage or a count for each "
            "option, by its text or in the options' order.",
        ),
    ] = {}
    description: Text | None = None
    new: Annotated[
        list[Text],
        Meta(
            max_length=NEW_QUESTIONS,
            description="Which of the answered questions are really new ones, however near they "
            "are to one of the survey.",
        ),
    ] = []


class PredictRequest(Known, forbid_unknown_fields=True, kw_only=True):
    """A group, and the questions whose answers to predict: ids, texts, or new questions."""

    questions: Asked


class AskRequest(Known, forbid_unknown_fields=True):
    """A group, and how many questions to choose, among which, to know more about which."""

    count: Annotated[int, Meta(ge=1, le=ASKED)] = 1
    among: Asked | None = None
    about: Asked | None = None


class CompareRequest(Struct, forbid_unknown_fields=True):
    """Two groups, and how many of their largest differences to tell."""

    one: Known
    other: Known
    questions: Asked | None = None
    count: Annotated[int, Meta(ge=1, le=QUESTIONS)] = 10


class RewardedGroup(Known, forbid_unknown_fields=True, kw_only=True):
    """A group whose predicted answers are a reward; it needs answers or a description."""

    name: Text = "the group"


class RewardRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A language model's completions, and the groups that they are scored by.

    OpenRLHF sends `query`, `prompts` and `labels` alone, and the rest stands in the address.
    """

    prompts: Annotated[list[str], Meta(max_length=COMPLETIONS)]
    completions: Annotated[list[str], Meta(max_length=COMPLETIONS)] | None = None
    query: (
        Annotated[
            list[str],
            Meta(
                max_length=COMPLETIONS, description="Prompts with their completions, as OpenRLHF."
            ),
        ]
        | None
    ) = None
    labels: (
        Annotated[
            list[str | None],
            Meta(max_length=COMPLETIONS, description="Ids of the questions, beside `query`."),
        ]
        | None
    ) = None
    question_ids: (
        Annotated[
            list[Text | None],
            Meta(
                max_length=COMPLETIONS,
                description="Beside `completions`; without them, prompts have to hold their "
                "question as pluralllm_app.rewards.rendered does. Null: this prompt asks none.",
            ),
        ]
        | None
    ) = None
    groups: list[RewardedGroup] = []
    rule: Literal["mean", "min", "max", "nash", "adaptive-alpha"] = "mean"
    form: Literal["share", "distribution", "match", "text"] = "share"
    unread: Annotated[
        float | None,
        Meta(description="What a completion earns that names no option or several."),
    ] = None


class RewardResponse(Struct):
    """A reward for each completion, null where it has none; twice, as OpenRLHF expects it."""

    rewards: list[float | None]
    scores: list[float | None]
    extra_logs: dict[str, float]


class SurveyQuestion(Struct):
    """A question; its id is null if the survey does not have it."""

    id: str | None
    text: str
    options: list[str]


class Interval(Struct):
    """The least and the largest share of each option, at one level such as 0.8."""

    level: float
    low: list[float]
    high: list[float]


class Predicted(Struct):
    """Predicted shares of a question's options, in their order; they sum to 1."""

    question: SurveyQuestion
    shares: list[float]
    intervals: list[Interval]


class PredictResponse(Struct):
    """Predictions in the order of the questions; notes say how texts were understood."""

    predictions: list[Predicted]
    notes: list[str]


class Choice(Struct):
    """A question to ask, and which part of what is uncertain it takes away with those before."""

    question: SurveyQuestion
    explained: float


class AskResponse(Struct):
    """Questions to put to the group, the best one first."""

    questions: list[Choice]
    notes: list[str]


class Difference(Struct):
    """How two groups are predicted to answer a question, and how far apart that is."""

    question: SurveyQuestion
    distance: float
    one: list[float]
    other: list[float]


class CompareResponse(Struct):
    """The largest differences first, and the alignment over all questions that were compared."""

    alignment: float
    compared: int
    differences: list[Difference]
    notes: list[str]


class QuestionsResponse(Struct):
    """A page of the survey's questions that have the words searched for, and how many have."""

    questions: list[SurveyQuestion]
    found: int


class CardResponse(Struct):
    """What is served: the predictor, its survey, and what it can do here."""

    title: str
    survey: str
    synthetic: bool
    questions: int
    new_texts: bool
    asks: bool
    least_answers: int
    card: dict[str, list[str]]


class HealthResponse(Struct):
    """That the service answers, and whether it asks for a token."""

    status: str
    token: bool


class Error(Struct):
    """Why a request was not served."""

    error: str


def decoded(body: bytes, kind: type[Message]) -> Message:
    """Read a message.

    Raises:
        Refused: 400 where it is no JSON, 422 where it is none of this kind, or has a name twice.
    """
    try:
        message = msgspec.json.decode(body, type=kind)
        # Of two answers to one question, msgspec would take the second.
        json.loads(body, object_pairs_hook=_each_once)
    except msgspec.ValidationError as error:
        raise Refused(422, f"the request is not as expected: {error}") from None
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise Refused(400, "the request is no valid JSON in UTF-8") from None
    return message


def checked(message: Message) -> Message:
    """A message that was put together here, as if it had been sent.

    Raises:
        Refused: 422 where a value is not as expected.
    """
    return decoded(msgspec.json.encode(message), type(message))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused(422, "the request names something twice: name each once")
    return found


encoded: Callable[[object], bytes] = msgspec.json.encode
