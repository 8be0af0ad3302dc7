"""Texts that say who a group is: where they come from, and that each belongs to its group alone."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Description
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.storage import DESCRIPTION

TEXT = "North: cold, and 中文"


def write_table(file: Path, **columns: object) -> Path:
    """Three questions to North and South; `columns` add to or replace the others."""
    rows = [
        {"question_id": f"q{q}", "question": f"Q {q}?", "option": option, "group": group}
        for group in ("North", "South")
        for q in range(3)
        for option in ("Yes", "No")
    ]
    pd.DataFrame(rows).assign(**{"count": 2, **columns}).to_csv(file, index=False)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., PreparedSurvey]:
    """Prepare a table of two groups; without a `file`, one that describes no group."""

    def prepared(descriptions: str | Path = "names", **options: object) -> PreparedSurvey:
        console = options.pop("console", Console(quiet=True))
        table = options.pop("file", None) or write_table(tmp_path / "mine.csv")
        return prepare(
            "table",
            tmp_path / "out",
            file=table,  # type: ignore[arg-type]
            min_questions=1,
            descriptions=str(descriptions),
            overwrite=True,
            console=console,  # type: ignore[arg-type]
            **options,
        )

    return prepared


def texts(survey: PreparedSurvey) -> dict[str, str | None]:
    return {group.name: survey.description(group.name) for group in survey.groups}


def test_by_default_a_group_is_described_by_its_name(run):
    survey = run()
    assert texts(survey) == {"North": "North", "South": "South"}
    embedding = survey.preferences("South").description
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, HashingEmbedder().describe(["South"])[0])


def test_sources_put_names_into_words(tmp_path):
    survey = prepare("demo", tmp_path / "demo", console=Console(quiet=True))
    assert survey.description("Kelmara") == "People in Kelmara"
    file = tmp_path / "opinions.csv"
    name = "India (Current national sample)"
    selections = f"defaultdict(<class 'list'>, {{{name!r}: [0.25, 0.75]}})"
    row = {"question": "Is it?", "selections": selections, "options": "['Yes', 'No']"}
    pd.DataFrame([row | {"source": "GAS"}]).to_csv(file, index=False)
    arguments = {"file": file, "train": [name], "min_questions": 1}
    survey = prepare("globalopinionqa", tmp_path / "pew", console=Console(quiet=True), **arguments)
    assert survey.description(name) == "People in India"


def test_a_table_of_lines_adds_to_the_names(tmp_path, run):
    file = tmp_path / "lines.csv"
    file.write_text('group,description\n North ,"cold, and\n 中文"\n', encoding="utf-8")
    console = Console(record=True, width=200, file=io.StringIO())
    survey = run(file, console=console)
    assert texts(survey) == {"North": TEXT, "South": "South"}
    assert f"2 groups described, 1 of them by name alone, the first as {TEXT!r}" in (
        console.export_text()
    )


def test_the_encoding_of_a_table_is_found_and_said_or_can_be_stated(tmp_path, run):
    file = tmp_path / "lines.csv"
    file.write_bytes("group;description\nNorth;Größe\n".encode("cp1252"))
    console = Console(record=True, width=300, file=io.StringIO())
    assert texts(run(file, console=console))["North"] == "North: Größe"
    assert "the table of descriptions: Windows-1252, semicolons" in console.export_text()
    file.write_bytes("group,description\nNorth,très\n".encode("cp1252"))
    with pytest.raises(SurveyError, match=r"'très' .*--encoding"):
        run(file)
    stated = Stated(encoding="cp1252")
    assert texts(run(file, stated=stated))["North"] == "North: très"
    # What is stated is said of the answers as well: a table in Unicode is none the worse.
    file.write_text("group,description\nNorth,très\n", encoding="utf-8")
    assert texts(run(file, stated=stated))["North"] == "North: très"


def test_a_table_alone_has_an_encoding_where_the_source_reads_no_file(tmp_path):
    file = tmp_path / "lines.csv"
    file.write_bytes("group,description\nKelmara,très\n".encode("cp1252"))
    stated, console = Stated(encoding="cp1252"), Console(quiet=True)
    survey = prepare(
        "demo", tmp_path / "demo", descriptions=str(file), stated=stated, console=console
    )
    assert survey.description("Kelmara") == "People in Kelmara: très"
    with pytest.raises(SurveyError, match="'demo' takes no --encoding"):
        prepare("demo", tmp_path / "other", stated=stated, console=console)


def test_none_on_request(run):
    survey = run("none")
    assert texts(survey) == {"North": None, "South": None}
    assert survey.preferences("North").description is None


def test_descriptions_do_not_change_the_questionnaire(tmp_path, run):
    lines = tmp_path / "lines.csv"
    lines.write_text("group,description\nNorth,cold\n")
    assert len({run(wish).fingerprint for wish in ("names", "none", lines)}) == 1


def test_a_column_of_the_table(tmp_path, run):
    cells = ["", "cold", " cold "] + [""] * 3 + [""] * 6
    file = write_table(tmp_path / "described.csv", description=cells)
    assert texts(run(file=file)) == {"North": "North: cold", "South": "South"}
    lines = tmp_path / "lines.csv"
    lines.write_text("group,description\nNorth,cold\n")
    with pytest.raises(SurveyError, match="describes its groups itself"):
        run(lines, file=file)
    file = write_table(tmp_path / "twice.csv", description=["cold", "warm"] * 6)
    with pytest.raises(SurveyError, match=r"describe a group in other words .*: 6, .* row 2"):
        run(file=file)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("Norht,cold", r"data row 1 is of unknown group 'Norht': did you mean 'North'"),
        ("North,cold\nNorth,cold", r"data row 2 describes 'North' a second time"),
        ("North, ", r"data row 1 has no description of 'North'"),
        ("North," + "cold " * 2000, r"'North' has 10,006 characters, .* shorten it to 1,000"),
    ],
)
def test_wrong_lines_are_refused(tmp_path, run, rows, fault):
    file = tmp_path / "lines.csv"
    file.write_text(f"group,description\n{rows}\n")
    with pytest.raises(SurveyError, match=fault):
        run(file)
    assert not (tmp_path / "out").exists()


def test_wrong_tables_are_refused(tmp_path, run):
    with pytest.raises(SurveyError, match="no such file; pass one, names, or none"):
        run("name")
    file = tmp_path / "lines.csv"
    file.write_text("country,text\nNorth,cold\n")
    with pytest.raises(SurveyError, match="has no column 'group'"):
        run(file)


@pytest.mark.parametrize("text", ["中文 и русский", "!?", "x" * 900])
def test_any_text_has_a_finite_embedding(tmp_path, run, text):
    file = tmp_path / "lines.csv"
    file.write_text(f"group,description\nNorth,{text}\n", encoding="utf-8")
    survey = run(file)
    assert survey.description("North") == f"North: {text}"
    assert np.isfinite(survey.preferences("North").description).all()


def test_an_embedder_that_fails_on_a_text_is_refused(run, monkeypatch):
    broken = np.full((2, 64), np.nan, np.float32)
    monkeypatch.setattr(HashingEmbedder, "describe", lambda *_: broken)
    with pytest.raises(SurveyError, match="not finite for the description 'North'"):
        run()


@pytest.fixture
def described(write) -> PreparedSurvey:
    """The tiny survey, in which North alone has a description."""
    own = Description(TEXT, np.array([0.1, -2.5], np.float32))
    return write(descriptions={"North": own})


def test_a_selection_keeps_description_and_respondents(described):
    north = described.preferences("North").select(np.array([1]))
    np.testing.assert_array_equal(north.description, np.array([0.1, -2.5], np.float32))
    assert north.respondents.tolist() == [10]
    assert described.preferences("South").description is None


def test_a_site_carries_its_own_description_alone(described, tmp_path):
    north = write_site(described, "North", tmp_path / "north")
    assert north.survey.description("North") == TEXT
    assert north.survey.preferences("North").respondents.tolist() == [10, 10]
    assert len(north.survey.preferences("North").description) == 2
    south = write_site(described, "South", tmp_path / "south")
    assert south.survey.description("South") is None
    content = b"".join(file.read_bytes() for file in south.survey.path.rglob("*.*"))
    assert b"cold" not in content


def rewrite_description(survey: PreparedSurvey, content: bytes) -> None:
    file = survey.path / survey.group("North").file
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({DESCRIPTION: content}), file)


@pytest.mark.parametrize(
    "damaged",
    [
        b"{",
        b"[]",
        b'{"text": "North"}',
        json.dumps({"text": "North", "embedding": [1.0]}).encode(),
        json.dumps({"text": "North", "embedding": [1.0, float("nan")]}).encode(),
        json.dumps({"text": "North", "embedding": ["a", "b"]}).encode(),
        json.dumps({"text": 7, "embedding": [1.0, 2.0]}).encode(),
    ],
)
def test_a_damaged_description_is_refused(described, damaged):
    rewrite_description(described, damaged)
    for read in (described.preferences, described.description):
        with pytest.raises(SurveyError, match=r"north\.parquet has a .*description"):
            read("North")
