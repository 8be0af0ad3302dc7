"""`/reward` in plain JSON and in the form of OpenRLHF."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pluralllm_app.rewards import GroupReward, SeveralGroups, rendered
from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.running import prepare
from pluralllm_app.use.predictor import Predictor
from tests.serve.conftest import KNOWN
from tests.support.used import OFTEN, QUESTIONS, YES_NO, answers_of

PROMPT = rendered(YES_NO[0])
SOUTH = {"answers": answers_of("South", QUESTIONS[:6]), "name": "South"}


@pytest.fixture
def named(predictor: Predictor, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a service that was given the answers of North."""
    lines = ["question,option,share"]
    for question, shares in answers_of("North", OFTEN).items():
        lines += [f"{question},{option},{share}" for option, share in shares.items()]
    (tmp_path / "north.csv").write_text("\n".join(lines))
    app = make_app(prepare(predictor, None, {"North": tmp_path / "north.csv"}), None, None)
    with TestClient(app) as client:
        yield client


def test_plain_json(client: TestClient, predictor: Predictor) -> None:
    groups = [KNOWN | {"name": "North"}, SOUTH]
    body = {"prompts": [PROMPT] * 3, "completions": ["A", "no", "Hm."], "groups": groups}
    response = client.post("/reward", json=body | {"rule": "min"})
    assert response.status_code == 200, response.text
    one = GroupReward(predictor.group(KNOWN["answers"], name="North"))  # type: ignore[arg-type]
    other = GroupReward(predictor.group(SOUTH["answers"], name="South"))  # type: ignore[arg-type]
    expected = SeveralGroups([one, other], "min")(body["prompts"], body["completions"])
    assert response.json()["rewards"] == pytest.approx(expected)
    assert expected[2] is None


def test_questions_by_id(client: TestClient) -> None:
    body = {"prompts": ["Well?"] * 2, "completions": ["A", "4"], "question_ids": ["c0", None]}
    found = client.post("/reward", json=body | {"groups": [KNOWN]}).json()["rewards"]
    by_prompt = {"prompts": [PROMPT], "completions": ["A"], "groups": [KNOWN]}
    assert found == [client.post("/reward", json=by_prompt).json()["rewards"][0], None]


def test_the_form_of_openrlhf(named: TestClient, predictor: Predictor) -> None:
    """Keys as its client sends them, one completion a request; settings in the address."""
    body = {"query": [f"{PROMPT} A<|im_end|>"], "prompts": [PROMPT], "labels": [None]}
    response = named.post("/reward?group=North&unread=0", json=body)
    assert response.status_code == 200, response.text
    reward = GroupReward(predictor.group(answers_of("North", OFTEN)))
    expected = pytest.approx(reward([PROMPT], ["A"]))
    assert response.json() == {"rewards": expected, "scores": expected, "extra_logs": {}}
    unread = named.post("/reward?group=North&unread=0", json=body | {"query": [f"{PROMPT}?"]})
    assert unread.json()["rewards"] == [0.0]
    refused = named.post("/reward?group=North", json=body | {"query": [f"{PROMPT}?"]})
    assert refused.status_code == 422
    assert "unread=0" in refused.json()["error"]


def test_groups_by_their_descriptions(client: TestClient, predictor: Predictor) -> None:
    body = {"query": [f"{PROMPT}A"], "prompts": [PROMPT], "labels": [""]}
    response = client.post("/reward", params={"description": "Group 7"}, json=body)
    if predictor.model.heeds_descriptions:
        assert response.status_code == 200, response.text
    else:
        assert "nothing is known of" in response.json()["error"]


@pytest.mark.parametrize(
    ("address", "change", "message"),
    [
        ("", {"groups": []}, "0 groups to reward were named"),
        ("", {"groups": [{}]}, "nothing is known of"),
        ("?group=West", {}, "no group is called 'West' here; known are: 'North'"),
        ("?groups=North", {}, "'groups' is nothing that /reward knows"),
        ("?unread=none", {}, "unread=none is no number"),
        ("?unread=nan", {}, "unread=nan is no number"),
        ("?unread=1e999", {}, "unread=1e999 is no number"),
        ("?form=best", {}, "best"),
        ("", {"rule": "adaptive-alpha"}, "the service keeps none"),
        ("", {"completions": None}, "either `completions`, or `query`"),
        ("", {"query": ["A"]}, "either `completions`, or `query`"),
        ("", {"completions": ["A", "B"]}, "1 prompts and 2 completions"),
        ("", {"prompts": ["Well?"]}, "asks no question that can be read"),
        ("", {"question_ids": ["c99"]}, "none of the survey's"),
        ("", {"groups": [KNOWN, KNOWN]}, "2 groups are called"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    named: TestClient, address: str, change: Any, message: str
) -> None:
    body = {"prompts": [PROMPT], "completions": ["A"], "groups": [KNOWN]}
    response = named.post(f"/reward{address}", json=body | change)
    assert response.status_code == 422
    assert message in response.json()["error"]


def test_a_completion_of_a_megabyte_is_refused(client: TestClient) -> None:
    body = {"prompts": [PROMPT], "completions": ["A" * 2**20], "groups": [KNOWN]}
    assert client.post("/reward", json=body).status_code == 413
