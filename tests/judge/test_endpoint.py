"""A model behind an API, as servers answer and as they give nonsense."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.judge import server
from pluralllm_app.judge.answers import LETTERS_KIND, Answer
from pluralllm_app.judge.endpoint import Endpoint
from pluralllm_app.judge.plan import Place
from tests.support.model_server import (
    Reply,
    Request,
    model_server,
    sampling,
    well_behaved,
)


def test_log_probabilities_of_a_chat_model(asks: Callable[..., Any]) -> None:
    with model_server(well_behaved) as running:
        answers, kind = asks(running.address)
    assert kind == LETTERS_KIND
    assert len(answers) == 30
    assert answers[Place(0, None, 0)] == Answer((pytest.approx(0.45), pytest.approx(0.45)), 1.0)
    assert answers[Place(6, None, 1)].named == pytest.approx((0.18, 0.36, 0.36))
    asked = running.asked[-1]
    assert asked.path == "/v1/chat/completions"
    assert asked.content["model"] == "small"
    assert (asked.content["max_tokens"], asked.content["top_logprobs"]) == (1, 20)
    assert "Authorization" not in asked.headers


def test_the_completions_of_a_model_that_is_no_chat_model(asks: Callable[..., Any]) -> None:
    with model_server(well_behaved) as running:
        answers, kind = asks(f"{running.address}/completions#other")
    assert kind == LETTERS_KIND
    assert answers[Place(0, None, 0)].named == pytest.approx((0.45, 0.45))
    assert {request.path for request in running.asked} == {"/v1/completions"}
    assert running.asked[0].content["model"] == "other"


def test_a_letter_is_found_with_a_space_before_it_too(asks: Callable[..., Any]) -> None:
    def spaced(request: Request) -> Reply:
        listed = [
            {"token": " A", "logprob": math.log(0.5)},
            {"token": "A", "logprob": math.log(0.25)},
            {"token": "\u2581B", "logprob": -9999.0},
            {"token": "b", "logprob": math.log(0.2)},
        ]
        return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})

    with model_server(spaced) as running:
        answers, _ = asks(f"{running.address}#small")
    assert answers[Place(0, None, 0)].named == (pytest.approx(0.75), 0.0)


def test_a_server_that_lists_few_tokens_or_names_the_length_differently(
    asks: Callable[..., Any],
) -> None:
    def particular(request: Request) -> Reply:
        content = request.content
        if content.get("top_logprobs", 0) > 5:
            return Reply({"error": {"message": "top_logprobs must be at most 5"}}, 400)
        if "max_tokens" in content:
            said = "unsupported: max_tokens, use max_completion_tokens instead"
            return Reply({"error": {"message": said}}, 400)
        return well_behaved(request)

    with model_server(particular) as running:
        _, kind = asks(f"{running.address}#small")
    assert kind == LETTERS_KIND
    content = running.asked[-1].content
    assert (content["max_completion_tokens"], content["top_logprobs"]) == (1, 5)


@pytest.mark.parametrize("several", [True, False])
def test_answers_are_sampled_where_there_are_no_log_probabilities(
    asks: Callable[..., Any], several: bool
) -> None:
    said = ["B", "b.", "The answer is B.", "I do not know", None]
    with model_server(sampling(said, several)) as running:
        answers, kind = asks(running.address)
    assert kind == "10 samples"
    assert sum(sum(answer.named) for answer in answers.values()) == pytest.approx(180, abs=9)
    assert {answer.total for answer in answers.values()} == {10.0}
    assert {answer.named[0] for answer in answers.values()} == {0.0}


@pytest.mark.parametrize("nothing", [None, {}, {"content": None}, {"content": []}, "none"])
def test_log_probabilities_that_are_left_out_in_silence_are_sampled(
    asks: Callable[..., Any], nothing: Any
) -> None:
    def ignoring(request: Request) -> Reply:
        choice = {"message": {"content": "A"}, "logprobs": nothing}
        return Reply({"choices": [choice] * request.content.get("n", 1)})

    with model_server(ignoring) as running:
        answers, kind = asks(f"{running.address}#small")
    assert kind == "10 samples"
    assert answers[Place(0, None, 0)] == Answer((10.0, 0.0), 10.0)


def test_as_many_samples_as_are_asked_for(asks: Callable[..., Any]) -> None:
    def generous(request: Request) -> Reply:
        return Reply({"choices": [{"message": {"content": "A"}}] * 5})

    with model_server(generous) as running:
        answers, kind = asks(f"{running.address}#small", samples=3)
    assert kind == "3 samples"
    assert answers[Place(0, None, 0)] == Answer((3.0, 0.0), 3.0)


def test_what_was_answered_is_not_asked_again_not_even_of_a_server_that_is_gone(
    asks: Callable[..., Any],
) -> None:
    count = iter(range(1000))

    def failing(request: Request) -> Reply:
        return well_behaved(request) if next(count) < 12 else Reply(b"", 500)

    with model_server(failing) as running:
        address = f"{running.address}#small"
        with pytest.raises(UserError, match=r"answers 500, 5 times: repeat") as caught:
            asks(address)
    assert "Answers so far are kept in" in caught.value.__notes__[0]
    port = int(running.address.split(":")[-1].split("/")[0])
    with model_server(well_behaved, port) as again:
        asks(address)
        assert len(again.asked) == 20  # of 30, 11 were kept; and one asks how to ask
    answers, _ = asks(address)
    assert len(answers) == 30


NO_CHOICES: list[Any] = [{}, {"choices": []}, {"choices": None}, {"choices": ["A"]}]
NO_NUMBERS: list[Any] = [math.nan, "x", None, 3.5, True, -(10**400)]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"<!doctype html><p>Sign in", 200, {"Content-Type": "text/html"}), "text/html that"),
        (Reply(b"", 200, {}), "no stated type that is no JSON"),
        (Reply(b"[" * 100_000), "no JSON"),
        (Reply([1, 2]), "no object: \\[1, 2\\]"),
        (Reply({"error": "out of memory"}), "answers with an error: out of memory"),
        (Reply({"error": {"message": "no such model"}}, 404), "404: no such model.*name is right"),
        (Reply(b"", 302, {"Location": "http://127.0.0.1:1/login"}), "sends on to http.*login"),
        (Reply(b"", 401), "asks for a key, to be put into .PLURALLLM_MODEL_KEY"),
        (Reply(b"x" * (server.MOST_BYTES + 1)), "more than 8,388,608 bytes"),
        (Reply(b"gone", 410), "answers 410: gone: repeat"),
        *((Reply(content), "no choices") for content in NO_CHOICES),
    ],
)
def test_nonsense_is_named(asks: Callable[..., Any], reply: Reply, said: str) -> None:
    with model_server(lambda _: reply) as running, pytest.raises(UserError, match=said) as caught:
        asks(f"{running.address}#small")
    assert running.address in str(caught.value)


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_log_probabilities_that_are_none_are_refused(asks: Callable[..., Any], number: Any) -> None:
    def behave(_: Request) -> Reply:
        listed = [{"token": "A", "logprob": number}]
        return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})

    with (
        model_server(behave) as running,
        pytest.raises(UserError, match=r"log-probabilities are malformed.*--samples"),
    ):
        asks(f"{running.address}#small")


def test_probabilities_that_sum_to_more_than_one_are_refused(asks: Callable[..., Any]) -> None:
    def behave(_: Request) -> Reply:
        listed = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -0.1}]
        return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})

    with model_server(behave) as running, pytest.raises(UserError, match=r"options sum to 1\.81"):
        asks(f"{running.address}#small")


def test_logarithms_may_be_rounded(asks: Callable[..., Any]) -> None:
    """Two of log(0.5) with four digits sum to 1.00003."""
    listed = [{"token": letter, "logprob": -0.6931} for letter in "AB"]
    reply = Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})
    with model_server(lambda _: reply) as running:
        answers, _ = asks(f"{running.address}#small")
    assert answers[Place(0, None, 0)].named == pytest.approx((0.5, 0.5), abs=1e-4)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://", "no address of an API"),
        ("http://host:port/v1", "no address"),
        ("http://host/v1?key=1", "no address of an API"),
        ("http://user:hidden@host/v1", "leave it out, and put a key into"),
    ],
)
def test_addresses_are_checked(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Endpoint(address, None, None)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, "has 2 models: .*#a; known are 'a', 'b'"),
        ({"data": []}, "has 0 models: .*#NAME"),
        ({"models": 3}, "does not list its models: give the name of one after a #"),
    ],
)
def test_a_server_of_several_models_is_told_which(
    asks: Callable[..., Any], listed: Any, said: str
) -> None:
    with model_server(lambda _: Reply(listed)) as running, pytest.raises(UserError, match=said):
        asks(running.address)
