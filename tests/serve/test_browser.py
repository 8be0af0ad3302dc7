"""The service's page in headless Chromium: what it shows, and what a hostile text can do."""

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.serve.app import make_app
from pluralllm_app.serve.guard import HEADERS
from pluralllm_app.serve.running import prepare
from pluralllm_app.use.predictor import Predictor
from tests.conftest import ROOT
from tests.serve.conftest import TOKEN
from tests.support.browser import CHROMIUM, NO_CHROMIUM, rendered
from tests.support.factors import first_predictor
from tests.support.hostile import text_of, write_hostile_survey
from tests.support.page_reader import PageReader
from tests.support.used import OFTEN, QUESTIONS, YES_NO
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]
PAGE = ROOT / "pluralllm_app" / "serve" / "page"
# The page's policy runs scripts of the service alone: in a test it has one more.
ACTS = """
const by = (id) => document.getElementById(id);
const until = async (holds) => { while (!holds()) await new Promise((go) => setTimeout(go, 20)); };
const type = (element, value, kind = "input") => {
  element.value = value;
  element.dispatchEvent(new Event(kind));
};
const settled = () => until(() => / of .* question/.test(by("status").textContent));
(async () => {
  await until(() => "ready" in document.documentElement.dataset);
  delete document.documentElement.dataset.ready;
  %s
  document.documentElement.dataset.ready = "";
})();
"""
Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Browse]:
    """Serves a predictor and gives its page, after some acts on it."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def browse(
        predictor: Predictor, acts: str = "", token: str | None = None, allowed: str | None = None
    ) -> str:
        page = (PAGE / "index.html").read_text("utf-8")
        page = page.replace("</head>", '<script src="acts.js" defer></script></head>')
        script = ACTS.replace("%s", acts)
        routes = [
            Route("/", lambda _: Response(page, headers=HEADERS, media_type="text/html")),
            Route("/acts.js", lambda _: Response(script, media_type="text/javascript")),
            Mount("/", make_app(prepare(predictor, None), token, None)),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, ws="none", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        servers.append((server, thread))
        thread.start()
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        return rendered(f"http://127.0.0.1:{port}/", tmp_path / "chromium", allowed)

    yield browse
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def tables(document: str) -> list[tuple[str, list[str]]]:
    """(question, shares as they are shown) of the predictions."""
    part = document[document.index('id="predictions"') : document.index('id="more"')]
    return [
        (caption, re.findall(r'class="number">(\d+ %)', table))
        for caption, table in re.findall(r"<caption[^>]*>([^<]*)(.*?)</table>", part, re.S)
    ]


def percents(*shares: list[float]) -> list[str]:
    """Shares as they are shown, option by option."""
    return [f"{100 * share:.0f} %" for pair in zip(*shares, strict=True) for share in pair]


def test_at_first_the_average_is_shown(
    browse: Browse, predictor: Predictor, client: TestClient
) -> None:
    document = browse(predictor)
    body = {"questions": [question.id for question in QUESTIONS[:10]]}
    found = client.post("/predict", json=body).json()["predictions"]
    assert tables(document) == [
        (each["question"]["text"], percents(each["shares"])) for each in found
    ]
    assert "10 of 12 questions" in document
    for lines in predictor.card().values():
        assert all(line in PageReader(document).text for line in lines)


def test_a_group_is_described_compared_and_asked(
    browse: Browse, predictor: Predictor, client: TestClient
) -> None:
    acts = """
      type(by("name"), "Our town");
      type(by("search"), "harbour CHANGE");
      await until(() => by("found").querySelector("button"));
      by("found").querySelector("button").click();
      if (document.activeElement !== by("answers").querySelector("input")) throw Error("focus");
      type(document.activeElement, 80);
      by("ask").click();
      await until(() => by("next").querySelector("button"));
      const asked = by("next").querySelector("button").firstChild.textContent;
      by("next").querySelector("button").click();
      await until(() => by("answers").children.length === 2);
      const second = by("answers").children[1];
      if (second.querySelector("h4").textContent !== asked) throw Error(asked);
      type(second.querySelector("[type=number]"), 50);
      if (!second.querySelector(".sum").textContent.includes("is not used")) throw Error("sum");
      type(by("filter"), "ferry");
      await until(() => by("status").textContent.startsWith("2 of 2"));
      by("ask").scrollIntoView();
      for (const control of document.querySelectorAll("input, textarea, select")) {
        if (!control.labels.length && !control.ariaLabel) throw Error(control.id);
      }
    """
    document = browse(predictor, acts)
    known = {"answers": {"c0": [0.8, 0.2]}}
    asked = {"questions": [YES_NO[3].id, OFTEN[3].id]}
    group, average = (
        client.post("/predict", json=known | asked).json()["predictions"] for known in (known, {})
    )
    assert tables(document) == [
        (one["question"]["text"], percents(one["shares"], all_groups["shares"]))
        for one, all_groups in zip(group, average, strict=True)
    ]
    (written,) = re.findall('<pre id="call">(.*?)</pre>', document, re.S)
    call = shlex.split(unescape(written))
    assert call[0] == "curl"
    assert json.loads(call[-1]) == known | asked
    assert "Our town" in document


def test_two_groups_and_new_questions(browse: Browse, predictor: Predictor) -> None:
    acts = """
      const [second] = document.querySelectorAll("[name=current][value='1']");
      type(by("description"), "People who like change");
      second.checked = true;
      second.dispatchEvent(new Event("change"));
      type(by("beside"), "other", "change");
      await settled();
      type(by("order"), "difference", "change");
      await settled();
      type(by("new-text"), "Should <b>the bridge</b> change soon?");
      type(by("new-options"), "Yes\\n<i>No</i>\\n");
      by("new-form").requestSubmit();
      await until(() => by("predictions").querySelector("caption small"));
    """
    document = browse(predictor, acts)
    assert tables(document)[0][0] == "Should &lt;b&gt;the bridge&lt;/b&gt; change soon?"
    assert "a new question: the survey does not have it" in document
    assert "&lt;i&gt;No&lt;/i&gt;" in document
    assert len(tables(document)) == 11


def test_no_text_becomes_markup(browse: Browse, tmp_path: Path) -> None:
    survey = write_hostile_survey(tmp_path / "survey")
    every = survey.questionnaire()
    model = first_predictor(every.embeddings, every.questions.counts, 3)
    predictor = Predictor(model, every)
    acts = """
      type(by("name"), "<img src=x onerror=alert(1)>");
      type(by("search"), "closed");
      await until(() => by("found").querySelector("button"));
      by("found").querySelector("button").click();
      type(document.activeElement, 40);
      by("ask").click();
      await until(() => by("next").querySelector("button"));
      await settled();
    """
    document = browse(predictor, acts)
    read = PageReader(document)
    assert {"img", "b", "iframe"} & set(read.tags) == set()
    assert read.tags.count("script") == 2
    assert text_of(0) in read.text
    assert survey.name in read.text
    assert "<img src=x onerror=alert(1)>" in read.text
    assert read.tags.count("title") == 1


def test_a_token_is_asked_for_once(browse: Browse, predictor: Predictor) -> None:
    acts = """
      if (by("access").hidden) throw Error("not asked");
      if (document.activeElement !== by("token")) throw Error("focus");
      by("token").value = "not-the-token-at-all";
      by("access").querySelector("button").click();
      await until(() => by("failure").textContent.includes("not the token"));
      by("token").value = "%s";
      by("access").querySelector("button").click();
      await settled();
      if (!by("access").hidden || !by("failure").hidden) throw Error("still asked");
    """
    refused = "401 (Unauthorized)"  # that a request was refused is told in the console
    document = browse(predictor, acts.replace("%s", TOKEN), TOKEN, refused)
    assert "Changes" in document
    assert TOKEN not in document.replace("acts.js", "")
    assert "Bearer $PLURALLLM_TOKEN" in document


def test_a_service_that_is_gone_is_said(browse: Browse, predictor: Predictor) -> None:
    acts = """
      const real = window.fetch;
      window.fetch = () => Promise.reject(new TypeError("Failed to fetch"));
      type(by("filter"), "ferry");
      await until(() => !by("failure").hidden);
      const said = by("failure").textContent;
      window.fetch = real;
      by("retry").click();
      await until(() => by("failure").hidden && by("status").textContent.startsWith("2 of 2"));
      by("status").textContent = said;
    """
    assert "The service does not answer: is it still running" in browse(predictor, acts)


def test_a_predictor_that_needs_an_answer_asks_for_one(
    browse: Browse, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FactorsPredictor, "least_context", 1)
    acts = """
      if (!by("status").textContent.includes("needs an answer")) throw Error("not asked");
      type(by("search"), "ferry");
      await until(() => by("found").querySelector("button"));
      by("found").querySelector("button").click();
      type(document.activeElement, 30);
      await settled();
    """
    assert len(tables(browse(predictor, acts))) == 10


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, by WCAG 2."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_can_be_told_apart_in_light_and_dark() -> None:
    css = (PAGE / "page.css").read_text("utf-8")
    light, dark, *_ = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in css.split("@media")
    )
    assert len(light) == len(dark) == 13
    for colours in (light, dark):
        for below in ("page", "box"):
            for text in ("text", "faint", "link"):
                assert contrast(colours[text], colours[below]) >= 4.5
            assert contrast(colours["edge"], colours[below]) >= 3
        assert contrast(colours["text"], colours["notice"]) >= 4.5
        for bar in ("first", "second", "average"):
            assert contrast(colours[bar], colours["page"]) >= 3
            assert contrast(colours[bar], colours["track"]) >= 2.5
