"""The OpenAPI document: sound, complete, and true of what is sent."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from tests.serve.conftest import KNOWN, NEW

OTHER = {"one": KNOWN, "other": {}}
REWARD = {"prompts": ["Well?"], "completions": ["A"], "question_ids": ["c0"], "groups": [KNOWN]}


@pytest.fixture
def document(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def validator(document: Any, content: Any) -> Draft202012Validator:
    """Of what a body's content says that it is."""
    (body,) = content.values()
    return Draft202012Validator({**body["schema"], "components": document["components"]})


def test_the_document_is_sound(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len(operations) == 7
    for operation in operations:
        assert operation["summary"]
        assert {"200", "429"} <= set(operation["responses"])
        for response in operation["responses"].values():
            (content,) = response["content"].values()
            name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
            assert name in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/health", None),
        ("/card", None),
        ("/questions", None),
        ("/predict", KNOWN | {"questions": ["c0", NEW]}),
        ("/ask", KNOWN | {"count": 2}),
        ("/compare", OTHER),
        ("/reward", REWARD),
    ],
)
def test_requests_and_responses_are_as_it_says(
    client: TestClient, document: Any, path: str, body: Any
) -> None:
    operation = document["paths"][path]["get" if body is None else "post"]
    if body is None:
        response = client.get(path)
    else:
        validator(document, operation["requestBody"]["content"]).validate(body)
        response = client.post(path, json=body)
        wrong = body | {"else": 1}
        assert not validator(document, operation["requestBody"]["content"]).is_valid(wrong)
        refused = client.post(path, json=wrong)
        validator(document, operation["responses"]["422"]["content"]).validate(refused.json())
    validator(document, operation["responses"]["200"]["content"]).validate(response.json())
