"""What a secure sum is of: anything in which a server could tell groups different things."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from pluralllm_app.errors import FederationError
from pluralllm_app.federation import asking
from pluralllm_app.federation.meaning import counts_request, meaning_of
from pluralllm_app.federation.messages import ARRAYS, arrays_to_record, record_to_arrays
from pluralllm_app.federation.summands import Summands
from pluralllm_app.learning.base import ArrayForm, Form, Request
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.settings import Settings
from tests.support.local_runs import Config, run
from tests.support.secure_runs import SECURE

SENT = {"noise": np.array([0.5]), "mean": np.zeros((2, 1))}
REQUEST = Request(3, False, "0" * 32, 2, {"mu": 0.5})


@pytest.fixture
def digest(make_settings: Callable[..., Settings]) -> Callable[..., bytes]:
    """Of a sum, which is changed in one way."""

    def of(
        changes: Mapping[str, Any] = {},
        request: Request = REQUEST,
        sent: Arrays = SENT,
        weighs: bool = False,
        room: float = 1.0,
    ) -> bytes:
        form = Form({"mean": ArrayForm(np.dtype(float), (2, 1), room=room)}, {}, weighs=weighs)
        summands = Summands.of(form, {"a": 1.0, "b": 2.0, "c": 3.0}, 1.0)
        return meaning_of(make_settings({**SECURE, **changes}), request, sent, summands).digest

    return of


@pytest.mark.parametrize(
    "change",
    [
        {"changes": {"learning-rate": 1e-30}},
        {"changes": {"weight-cap": 0.4}},
        {"changes": {"strategy": "fedadam"}},
        {"request": counts_request("0" * 32)},
        {"request": Request(4, False, "0" * 32, 2, {"mu": 0.5})},
        {"request": Request(3, False, "1" * 32, 2, {"mu": 0.5})},
        {"request": Request(3, False, "0" * 32, 2, {"mu": 0.25})},
        {"sent": {**SENT, "noise": np.array([1e-300])}},
        {"sent": {**SENT, "noise": np.array([0.5], np.float32)}},
        {"sent": {**SENT, "mean": np.zeros((1, 2))}},
        {"weighs": True},
        {"room": 2.0},
    ],
    ids=str,
)
def test_what_shapes_a_vector_is_in_it(digest: Callable[..., bytes], change: Any) -> None:
    assert digest(**change) != digest()


@pytest.mark.parametrize(
    "change",
    [
        {"changes": {"round-timeout": 7.0}},
        {"request": Request(3, True, "0" * 32, 0, {"mu": 0.5})},
    ],
    ids=str,
)
def test_what_differs_between_honest_groups_is_not(
    digest: Callable[..., bytes], change: Any
) -> None:
    assert digest(**change) == digest()


FACTORS: Config = {"predictor": "factors"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "number", "to", "error"),
    [
        (FACTORS, "variances", 0.02, 1, "do not cancel"),
        ({}, "weights", 0.0, 1, "do not cancel"),
        # What is told all alike is bounded where it would make a sum that of few groups.
        (FACTORS, "variances", 1e-300, 5, "noise below 1e-08, which no run gives"),
        (FACTORS, "contributors", 4.0, 5, "counts more groups for a row than the sum is over"),
    ],
)
def test_a_server_that_sends_odd_numbers_gets_nothing(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    kind: Config,
    name: str,
    number: float,
    to: int,
    error: str,
) -> None:
    """To the first groups, of five; the first of the variances is that of the noise."""
    real = asking.round_messages

    def two_faced(*arguments: Any) -> list[Message]:
        messages = real(*arguments)
        for message in messages[:to]:
            sent = record_to_arrays(message.content[ARRAYS])  # type: ignore[arg-type]
            sent[name] = sent[name].copy()
            sent[name][0] = number
            message.content[ARRAYS] = arrays_to_record(sent)
        return messages

    monkeypatch.setattr("pluralllm_app.federation.rounds.round_messages", two_faced)
    with pytest.raises(FederationError, match=error):
        run(config | SECURE | kind | {"evaluate-every": 100})
