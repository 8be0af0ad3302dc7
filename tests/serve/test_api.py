"""What the service answers over HTTP is what the predictor says."""

import io
from typing import Any

import pytest
from starlette.testclient import TestClient

from pluralllm_app.serve import limits, service
from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.running import prepare
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question
from tests.serve.conftest import KNOWN, NEW
from tests.support.used import OFTEN, QUESTIONS, YES_NO, answers_of


def test_the_card_says_what_is_served(client: TestClient, predictor: Predictor) -> None:
    assert client.get("/health").json() == {"status": "ok", "token": False}
    card = client.get("/card").json()
    assert card["survey"] == "Changes"
    assert (card["questions"], card["new_texts"], card["asks"]) == (12, True, True)
    assert card["card"] == predictor.card()


def test_questions_are_searched_by_all_words(client: TestClient) -> None:
    assert client.get("/questions").json()["found"] == 12
    found = client.get("/questions", params={"search": "HARBOUR often"}).json()
    assert found["found"] == 1
    question = OFTEN[0]
    assert found["questions"] == [
        {"id": question.id, "text": question.text, "options": list(question.options)}
    ]
    later = client.get("/questions", params={"search": "harbour", "start": "1"}).json()
    assert [each["id"] for each in later["questions"]] == [question.id]
    assert client.get("/questions", params={"start": "-1"}).status_code == 422


def test_predictions_are_those_of_the_predictor(client: TestClient, predictor: Predictor) -> None:
    asked: list[Any] = [OFTEN[1].id, YES_NO[0].text, NEW]
    response = client.post("/predict", json=KNOWN | {"questions": asked})
    assert response.status_code == 200, response.text
    group = predictor.group(KNOWN["answers"])  # type: ignore[arg-type]
    expected = group.predict([OFTEN[1].id or "", YES_NO[0].text, Question(**NEW)])  # type: ignore[arg-type]
    for found, answer in zip(response.json()["predictions"], expected, strict=True):
        assert found["question"] == {
            "id": answer.question.id,
            "text": answer.question.text,
            "options": list(answer.question.options),
        }
        assert found["shares"] == pytest.approx(list(answer.shares.values()), abs=1e-6)
        for interval, (level, bounds) in zip(
            found["intervals"], answer.intervals.items(), strict=True
        ):
            assert interval["level"] == level
            ends = [*zip(interval["low"], interval["high"], strict=True)]
            assert ends == [pytest.approx(pair, abs=1e-6) for pair in bounds.values()]


def test_notes_are_of_one_request(client: TestClient) -> None:
    body = KNOWN | {"questions": ["how often do you miss the SCHOOL of old"]}
    notes = client.post("/predict", json=body).json()["notes"]
    assert len(notes) == 1
    assert "was read as the survey's 'How often do you miss the school of old?'" in notes[0]
    again = client.post("/predict", json=KNOWN | {"questions": [OFTEN[4].id]}).json()
    assert again["notes"] == []


def test_the_next_questions_are_chosen(client: TestClient, predictor: Predictor) -> None:
    response = client.post("/ask", json=KNOWN | {"count": 3})
    expected = predictor.group(KNOWN["answers"]).ask(3)  # type: ignore[arg-type]
    found = response.json()["questions"]
    assert [each["question"]["id"] for each in found] == [each.question.id for each in expected]
    among = {"among": [OFTEN[2].id], "about": [OFTEN[3].id]}
    (only,) = client.post("/ask", json=KNOWN | among).json()["questions"]
    assert only["question"]["id"] == OFTEN[2].id


def test_groups_are_compared(client: TestClient, predictor: Predictor) -> None:
    other = {"answers": answers_of("South", QUESTIONS[:6])}
    found = client.post("/compare", json={"one": KNOWN, "other": other, "count": 2}).json()
    one, two = (predictor.group(known["answers"]) for known in (KNOWN, other))  # type: ignore[arg-type]
    expected = one.compare(two)
    assert found["alignment"] == pytest.approx(expected.alignment, abs=1e-6)
    assert found["compared"] == 12
    assert [each["question"]["id"] for each in found["differences"]] == [
        each.one.question.id for each in expected.differences[:2]
    ]


def test_a_group_is_put_together_once_and_forgotten(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(predictor, None)
    with TestClient(make_app(made, None, None)) as client:
        for _ in range(3):
            client.post("/predict", json=KNOWN | {"questions": ["c0"]})
        assert len(made.groups) == 1
        for number in range(limits.GROUPS + 5):
            known = {"answers": {"c0": [1, number]}, "questions": ["c1"]}
            assert client.post("/predict", json=known).status_code == 200
        assert len(made.groups) == limits.GROUPS
    monkeypatch.setattr("pluralllm_app.serve.groups.GROUP_SECONDS", -1)
    made.groups.forget()
    assert len(made.groups) == 0


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "no valid JSON"),
        (b"{", 400, "no valid JSON"),
        (b'{"questions": ["c0"], "description": "\xff"}', 400, "no valid JSON"),
        (b'{"questions": ["\\ud800"]}', 400, "no valid JSON"),
        (b'{"questions": ["c0"], "answers": {"c1": [NaN, 1]}}', 400, "no valid JSON"),
        (b"[" * 100_000, 422, "expected"),
        (b'{"questions": ' + b"[" * 100_000, 422, "expected"),
        (b'{"questions": ["c0"], "answers": {"c1": [1e999, 1]}}', 422, "out of range"),
        (b'{"questions": ["c0"], "answers": {"c1": [1' + b"0" * 400 + b", 1]}}", 422, "range"),
        (b'{"questions": ["c0"], "answers": {"c1": [true, 1]}}', 422, "got `bool`"),
        (b'{"questions": "c0"}', 422, "got `str`"),
        (b'{"questions": []}', 422, "length >= 1"),
        (b"{}", 422, "missing required field `questions`"),
        (b'{"questions": ["c0"], "else": 1}', 422, "unknown field `else`"),
        (b'{"questions": ["c0"], "answers": {"c1": [1, 2], "c1": [2, 1]}}', 422, "twice"),
        (b'{"questions": ["c0"], "answers": {"c1": [-1, 2]}}', 422, "0 or more"),
        (b'{"questions": ["c0"], "answers": {"c1": [1e308, 1e308]}}', 422, "have ever lived"),
        (b'{"questions": ["c0"], "answers": {"c1": [0.3, 0.3]}}', 422, "sum to 1"),
        (b'{"questions": ["c0"], "answers": {"c1": [1, 2, 3]}}', 422, "has 2 options"),
        (b'{"questions": ["c0"], "answers": {"c1": {"Maybe": 1}}}', 422, "no option 'Maybe'"),
        (b'{"questions": ["c0"], "answers": {"c99": [0.5, 0.5]}}', 422, "none of the survey's"),
        (
            b'{"questions": ["c0"], "answers": {"c1": [1, 0], "c99": {"Yes": 1, "No": 0}}}',
            422,
            "question 'c99': no question has this id",
        ),
        (b'{"questions": ["c0"], "new": ["c99"]}', 422, "no answers by option to 'c99'"),
        (b'{"questions": ["nothing of the kind"]}', 422, "is none of the survey's"),
        (b'{"questions": [{"text": "Tea?", "options": ["Yes"]}]}', 422, "at least two"),
        (b'{"questions": ["c0"], "description": " "}', 422, "description is empty"),
    ],
)
def test_what_is_wrong_is_said(client: TestClient, body: bytes, status: int, said: str) -> None:
    response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, set(response.json())) == (status, {"error"})
    assert said in response.json()["error"]
    assert "/" not in response.json()["error"]  # no path of this machine


def test_an_answered_question_is_new_where_the_request_says_so(client: TestClient) -> None:
    body = {"questions": ["c0"], "answers": {"c99": {"Yes": 1, "No": 0}}, "new": ["c99"]}
    response = client.post("/predict", json=body)
    assert response.status_code == 200, response.text
    assert any("c99" in note for note in response.json()["notes"])


def test_what_is_too_much_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"question {number}" for number in range(limits.QUESTIONS + 1)]
    assert client.post("/predict", json={"questions": many}).status_code == 422
    new = [{"text": f"Tea {number}?", "options": ["Yes", "No"]} for number in range(30)]
    said = client.post("/predict", json={"questions": new}).json()["error"]
    assert said.startswith("questions: one request may bring 20 new questions")
    answers = {each["text"]: {"Yes": 1, "No": 1} for each in new}
    said = client.post("/predict", json={"questions": ["c0"], "answers": answers}).json()["error"]
    assert said.startswith("answers: one request may bring 20 new questions")
    group = {"prompts": ["?"], "completions": ["Yes"], "groups": [{"answers": answers}]}
    said = client.post("/reward", json=group).json()["error"]
    assert said.startswith("answers: one request may bring 20 new questions")
    options = [f"option {number}" for number in range(limits.NEW_OPTIONS + 1)]
    one = [{"text": "Tea?", "options": options}]
    assert client.post("/predict", json={"questions": one}).status_code == 422
    monkeypatch.setattr("pluralllm_app.serve.app.RESPONSE_BYTES", 100)
    said = client.post("/predict", json={"questions": ["c0"]}).json()["error"]
    assert "ask for fewer questions" in said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
    ],
)
def test_only_plain_json_is_taken(client: TestClient, headers: dict[str, str], status: int) -> None:
    response = client.post("/predict", content=b'{"questions": ["c0"]}', headers=headers)
    assert response.status_code == status


def test_large_bodies_are_refused_with_and_without_a_length(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    large = b" " * (limits.BODY_BYTES + 1)
    assert client.post("/predict", content=large, headers=headers).status_code == 413
    parts = iter([large[: limits.BODY_BYTES], b"  "])
    assert client.post("/predict", content=parts, headers=headers).status_code == 413
    twice = headers | {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    response = client.post("/predict", content=b"{}", headers=twice)
    assert (response.status_code, response.headers["Connection"]) == (400, "close")


def test_without_an_embedder_the_surveys_questions_are_served(
    predictor: Predictor, served_run: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Predictor.from_pretrained(str(served_run))
    monkeypatch.setattr(type(bare.texts), "ready", False)
    with TestClient(make_app(prepare(bare, None), None, None)) as client:
        assert client.get("/card").json()["new_texts"] is False
        assert client.post("/predict", json={"questions": ["c0"]}).status_code == 200
        for asked in ({"questions": [NEW]}, {"questions": ["c0"], "description": "Old people"}):
            response = client.post("/predict", json=asked)
            assert response.status_code == 422
            assert "this service has none loaded" in response.json()["error"]


def test_a_failure_tells_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("an answer of the group")

    monkeypatch.setattr(service, "_predicted", fail)
    response = client.post("/predict", json={"questions": ["c0"]})
    assert response.status_code == 500
    assert response.json() == {"error": "the service failed: its log says where"}
    assert "ValueError in" in logged.getvalue()
    assert "an answer" not in logged.getvalue()
    assert "Traceback" not in logged.getvalue()
