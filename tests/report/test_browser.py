"""The page in headless Chromium: no errors, and the shares shown are those asked for."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.browser import CHROMIUM, NO_CHROMIUM, rendered
from tests.support.page_reader import PageReader

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]


def load(page: Path, home: Path, **state: str) -> str:
    """The document after its scripts have run; console messages fail the test."""
    return rendered(f"{page.as_uri()}#{urlencode(state)}", home, allowed='Dropping "fit-y"')


def bars(document: str) -> list[tuple[str, str]]:
    """(kind, share) of the bars of the shares' chart."""
    chart = document[document.index('id="shares"') : document.index('id="options"')]
    return re.findall(r"kind: (\w+); shares: \w+; share: ([\d.]+)%\" role=\"graphics-symbol", chart)


def drawn(document: str, chart: str) -> str:
    """The drawing of one chart."""
    start = document.index(f'data-chart="{chart}"')
    return document[start : document.index("</svg>", start)]


def expected(answer: Any) -> list[tuple[str, str]]:
    return [
        (kind, f"{share / 10:.1f}")
        for pair in zip(answer[1], answer[2], strict=True)
        for kind, share in zip(("true", "predicted"), pair, strict=True)
    ]


def test_groups_and_questions_can_be_chosen(reported: Path, tmp_path: Path) -> None:
    data = json.loads(PageReader(reported.read_text("utf-8")).data)
    questions, groups = data["predictions"]["questions"], data["predictions"]["groups"]
    opened = load(reported, tmp_path / "chromium")
    assert bars(opened) == expected(groups[0]["answers"][0])
    assert opened.count('class="marks"') == 10  # every chart of the page is drawn
    differences = drawn(opened, "differences-evaluation")
    for row in data["charts"]["differences-evaluation"]["datasets"]["rows"]:
        assert f"method: {row['method']}; " in differences
    assert "Federated GPO" not in differences
    group, answer = groups[4], groups[4]["answers"][1]
    identifier, text, options = questions[answer[0]]
    chosen = load(reported, tmp_path / "chromium", group=group["name"], question=identifier)
    assert bars(chosen) == expected(answer)
    assert bars(chosen) != bars(opened)
    shown = PageReader(chosen).text
    assert text in shown
    assert all(option in shown for option in options)


def test_controls_change_what_is_shown(reported: Path, tmp_path: Path) -> None:
    # The page's policy runs no script but its own: the test's copy of the page has none.
    page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", reported.read_text())
    acts = """<script>addEventListener("load", async () => {
        const act = (id, value, kind) => {
            const control = document.querySelector(id);
            control.value = value;
            control.dispatchEvent(new Event(kind));
        };
        act("#group", "Alder", "change");
        document.querySelector("#next").click();
        act("#alignment [data-axis]", "tasks", "change");
        for (const figure of ["#groups", "#differences"]) {
            document.querySelector(`${figure} [data-method][value=Consensus]`).click();
        }
    });</script></body>"""
    copy = tmp_path / "copy.html"
    copy.write_text(acts.join(page.rsplit("</body>", 1)))
    document = load(copy, tmp_path / "chromium")
    predictions = json.loads(PageReader(page).data)["predictions"]
    alder = next(group for group in predictions["groups"] if group["name"] == "Alder")
    assert bars(document) == expected(alder["answers"][1])
    assert "tasks trained on, by all groups together" in document
    assert "method: Federated GPO" in drawn(document, "groups-evaluation")
    assert "method: Uniform" in drawn(document, "differences-evaluation")
    for chart in ("groups-evaluation", "differences-evaluation"):
        assert "method: Consensus" not in drawn(document, chart)
