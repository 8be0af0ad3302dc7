"""From an institute's file to a site, by the commands."""

import csv
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders.registry import SENTENCE_EMBEDDER
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import Site
from pluralllm_app.survey.sources.stated import Stated
from tests.support.people import LABELS, MAP, WRITERS, expected, people
from tests.survey.test_making_sites import call, contents, done, refused

pytestmark = pytest.mark.slow

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def sav(tmp_path: Path) -> Path:
    WRITERS["sav"][1](people(), tmp_path / "people.sav")
    return tmp_path / "people.sav"


@pytest.fixture
def map_(tmp_path: Path) -> Path:
    file = tmp_path / "map.toml"
    file.write_text(MAP, "utf-8")
    return file


@pytest.fixture
def questionnaire(map_: Path, tmp_path: Path) -> Path:
    done("questionnaire", map_, "--out", tmp_path / "questions")
    return tmp_path / "questions"


def test_from_a_file_to_a_site(sav: Path, tmp_path: Path) -> None:
    said = done("questionnaire", sav, "--profile", "wvs", "--out", tmp_path / "draft.toml")
    assert 'a draft with 3 questions; left out as no answers: "don\'t know" in 2' in said
    assert "no questions, it seems: 1 variable. Read and edit it" in said
    text = (tmp_path / "draft.toml").read_text("utf-8")
    assert '\n# weight = "W"   # the column of weights, or "none"\n# by = ["COUNTRY"]   #' in text
    text = text.replace("# weight = ", "weight = ").replace("# by = ", "by = ")
    text = "\n".join(text.splitlines())
    (tmp_path / "map.toml").write_text(drop_question(text, "COUNTRY"), "utf-8")
    said = done("questionnaire", tmp_path / "map.toml", "--out", tmp_path / "questions")
    assert "embedded by hashing, which knows words by their spelling only" in said
    assert f"repeat this with --embedder {SENTENCE_EMBEDDER} and another --out" in said
    said = done("questionnaire", tmp_path / "questions", "--out", tmp_path / "again")
    assert "spelling" not in said  # it was made before
    said = done(
        *("site", "create", tmp_path / "questions", "--group", "Germany", "--file", sav),
        *("--map", tmp_path / "map.toml", "--out", tmp_path / "site"),
    )
    assert "2 of 2 questions answered" in said
    assert "What is left out:" in said
    frame = people()
    site = Site.open(tmp_path / "site")
    preferences = site.survey.preferences("Germany")
    wanted, effective = expected(frame, 276, "Q1", [1, 2, 3])
    np.testing.assert_allclose(preferences.shares[:3], wanted, atol=1e-7)
    assert preferences.respondents is not None
    assert preferences.respondents[0] == round(effective)
    with (tmp_path / "site.left-out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    left_out = {(row["question_id"], row["reason"]): int(row["people"]) for row in rows}
    german = frame[frame["COUNTRY"] == 276]
    assert left_out["", "another group"] == (frame["COUNTRY"] == 250).sum()
    assert left_out["Q1", "refused"] == (german["Q1"] == 9).sum()
    assert left_out["Q2", "no answer in the file"] == german["Q2"].isna().sum()


def drop_question(text: str, id_: str) -> str:
    head, *parts = text.split("[[question]]")
    kept = [part for part in parts if f'id = "{id_}"' not in part]
    return "[[question]]".join([head, *kept])


def test_a_draft_says_what_it_guesses(sav: Path, tmp_path: Path) -> None:
    done("questionnaire", sav, "--out", tmp_path / "draft.toml")
    draft = tomllib.loads((tmp_path / "draft.toml").read_text("utf-8"))
    country, q1, q2 = draft["question"]
    assert country["options"][0] == {"code": 250, "option": "France"}
    assert q1["question"] == "How satisfied are you with democracy?"
    assert q1["ordered"] is True
    assert q2["ordered"] is False
    assert [own["code"] for own in q1["options"]] == [1, 2, 3]
    assert q1["left-out"] == [
        {"code": 8, "reason": "don't know"},
        {"code": 9, "reason": "refused"},
    ]
    assert q2["left-out"] == [
        {"code": -4, "reason": "not asked"},
        {"code": -1, "reason": "don't know"},
    ]
    assert "is there already" in refused("questionnaire", sav, "--out", tmp_path / "draft.toml")


def test_several_groups_for_simulation_are_the_sites_of_each(
    sav: Path, map_: Path, questionnaire: Path, tmp_path: Path
) -> None:
    files = ("--file", sav, "--map", map_)
    done(
        *("prepare", "microdata", *files, "--train", "France", "--train", "Germany"),
        *("--min-questions", "1", "--out", tmp_path / "pooled"),
    )
    survey = PreparedSurvey.open(tmp_path / "pooled")
    assert [group.name for group in survey.groups] == ["France", "Germany"]
    assert survey.fingerprint == PreparedSurvey.open(questionnaire).fingerprint
    done("site", "create", tmp_path / "pooled", "--group", "France", "--out", tmp_path / "cut")
    france = ("--group", "France", *files, "--out", tmp_path / "made")
    done("site", "create", questionnaire, *france)
    cut, made = contents(tmp_path / "cut"), contents(tmp_path / "made")
    assert cut["groups/france.parquet"] == made["groups/france.parquet"]


def site(questionnaire: Path, file: Path, map_: Path, *more: str | Path) -> list[str | Path]:
    return [
        *("site", "create", questionnaire, "--group", "Germany", "--file", file, "--map", map_),
        *("--out", questionnaire.parent / "site", *more),
    ]


def test_published_shares_are_compared(
    sav: Path, map_: Path, questionnaire: Path, tmp_path: Path
) -> None:
    wanted, _ = expected(people(), 276, "Q1", [1, 2, 3])
    options = [LABELS["Q1"][code] for code in (1, 2, 3)]
    rows = [f"Q1,{option},{share:.0%}" for option, share in zip(options, wanted, strict=True)]
    toplines = tmp_path / "toplines.csv"
    toplines.write_text("\n".join(["question_id,option,share", *rows]))
    said = done(*site(questionnaire, sav, map_, "--check", toplines))
    assert re.search(r"3 published shares agree, .* difference is 0\.\d\d percentage points", said)
    (tmp_path / "site").rename(tmp_path / "old")
    (tmp_path / "site.left-out.csv").unlink()
    texts = ["How satisfied are you with democracy?" + row.removeprefix("Q1") for row in rows]
    toplines.write_text("\n".join(["question,option,share", *texts]))
    assert "3 published shares agree" in done(*site(questionnaire, sav, map_, "--check", toplines))
    (tmp_path / "site").rename(tmp_path / "older")
    (tmp_path / "site.left-out.csv").unlink()
    toplines.write_text("option,share\nVery satisfied,30%\n")
    said = refused(*site(questionnaire, sav, map_, "--check", toplines))
    assert "has no column 'question_id', and no 'question' either" in said
    toplines.write_text("\n".join(["question_id,option,share", *rows[:2], "Q1,Not satisfied,90%"]))
    said = refused(*site(questionnaire, sav, map_, "--check", toplines))
    assert "1 of 3 shares differ" in said
    assert "Germany, Q1, 'Not satisfied': 90.0% published" in said
    unweighted = refused(*site(questionnaire, sav, map_, "--check", toplines, "--weight", "none"))
    assert "shares differ" in unweighted
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: f.assign(W=np.inf), "W is inf in data row 1"),
        (lambda f: f.assign(COUNTRY=f["COUNTRY"].replace(250, 999)), "COUNTRY has the code 999"),
        (lambda f: f.drop(columns="Q2"), "has no variable 'Q2' of"),
        (lambda f: f.drop(columns="W"), "has no column of weights 'W'"),
        (lambda f: f.assign(W="1"), "W holds texts, not numbers"),
    ],
)
def test_what_would_give_wrong_shares_is_refused(
    change: Change, fault: str, map_: Path, tmp_path: Path
) -> None:
    frame = change(people())
    labels = {name: own for name, own in LABELS.items() if name in frame}
    pyreadstat.write_sav(frame, str(tmp_path / "other.sav"), variable_value_labels=labels)
    with pytest.raises(SurveyError, match=re.escape(fault)):
        count_people(tmp_path / "other.sav", Stated(map=map_), "Germany")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: f.assign(W="heavy"), "W is 'heavy' in data row 1, which is no finite number"),
        (lambda f: f.assign(W=f["W"].where(f.index != 6, -1)), "W is -1 in data row 7"),
        (lambda f: f.assign(W=f["W"].where(f.index != 6, 1e200)), "W is 1e+200 in data row 7"),
        (lambda f: f.assign(W=f["W"].where(f.index != 6, 1e-200)), "W is 1e-200 in data row 7"),
        (lambda f: f.assign(W=f["W"].where(f.index % 3 > 0)), "may be the weight of another wave"),
        (lambda f: f.assign(Q1=f["Q1"].replace(3, 7)), "Q1 = '7' for"),
        (lambda f: f.assign(COUNTRY=["Germany", 250] * 200), "has numbers, as '250', and names"),
        (lambda f: f.assign(COUNTRY=["Germany", "GERMANY"] * 200), "differ by capitals, width"),
        (
            lambda f: f.assign(COUNTRY=["Germany", "\uff27ermany"] * 200),
            "differ by capitals, width",
        ),
        (lambda f: f.assign(COUNTRY="France"), "nobody is of group 'Germany': known are 'France'"),
    ],
)
def test_what_would_split_groups_is_refused(
    change: Change, fault: str, map_: Path, tmp_path: Path
) -> None:
    frame = people().assign(COUNTRY="Germany")
    change(frame).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(SurveyError, match=re.escape(fault)):
        count_people(tmp_path / "other.csv", Stated(map=map_), "Germany")


def test_whom_the_shares_are_of_is_said(sav: Path, map_: Path, questionnaire: Path) -> None:
    frame = people()
    german = frame[frame["COUNTRY"] == 276]
    effective = [
        expected(frame, 276, *asked)[1] for asked in (("Q1", [1, 2, 3]), ("Q2", [1, 2, -1]))
    ]
    said = done(*site(questionnaire, sav, map_))
    assert (
        f"{len(german)} people of 'Germany' by COUNTRY; weighted by W (from "
        f"{german['W'].min():.3g} to {german['W'].max():.3g}); effective respondents from "
        f"{min(effective):.0f} to {max(effective):.0f}"
    ) in said
    bare = map_.with_name("bare.toml")
    bare.write_text(MAP.replace('by = ["COUNTRY"]', ""), "utf-8")
    (questionnaire.parent / "site").rename(questionnaire.parent / "old")
    (questionnaire.parent / "site.left-out.csv").unlink()
    said = done(*site(questionnaire, sav, bare, "--weight", "none"))
    assert f"{len(frame)} people of 'Germany', all of the file; each counts alike" in said


def test_codes_with_labels_are_no_weights(sav: Path, map_: Path) -> None:
    with pytest.raises(SurveyError, match=r"COUNTRY has a label \(250 'France', 276 'Germany'\)"):
        count_people(sav, Stated(map=map_, weight="COUNTRY"), "Germany")


def test_a_variable_of_two_questions_is_named(sav: Path, map_: Path) -> None:
    text = MAP.replace('id = "Q2"\nvariable = "Q2"', 'id = "Q3"\nvariable = "Q1"')
    text = text.replace('{ code = -4, reason = "not asked" }', '{ code = [3, 8, 9], reason = "x" }')
    map_.write_text(text, "utf-8")
    note = count_people(sav, Stated(map=map_), "Germany").content.note
    assert "in several questions of the map: Q1;" in note


def test_wishes_that_lack_something(
    sav: Path, map_: Path, questionnaire: Path, tmp_path: Path
) -> None:
    out = ("--group", "Germany", "--file", sav, "--out", tmp_path / "site")
    assert "needs --map" in refused("site", "create", questionnaire, *out)
    assert "has one row per person: make a draft" in refused(
        "questionnaire", sav, "--out", tmp_path / "x"
    )
    bare = tmp_path / "bare.toml"
    bare.write_text(MAP.replace('weight = "W"', "").replace('by = ["COUNTRY"]', ""), "utf-8")
    assert "--weight none if all of them count alike" in refused(*site(questionnaire, sav, bare))
    pooled = ("--file", sav, "--map", bare, "--weight", "w", "--out", tmp_path / "pooled")
    assert "say which column tells the groups apart" in refused("prepare", "microdata", *pooled)
    done(*site(questionnaire, sav, bare, "--weight", "w"))  # all of the file is the group
    assert call(*site(questionnaire, sav, map_, "--min-respondents", "0")).exit_code == 2


def test_labels_in_another_language_than_the_questionnaire(
    sav: Path, map_: Path, tmp_path: Path
) -> None:
    """Codes are what a file and a questionnaire have in common; the map says so."""
    german = tmp_path / "german.toml"
    text = MAP.replace('option = "Yes"', 'option = "Ja"').replace(
        'option = "No"', 'option = "Nein"'
    )
    german.write_text(text, "utf-8")
    questions = tmp_path / "questions"
    done("questionnaire", german, "--out", questions)
    said = refused(*site(questions, sav, map_))
    assert "question 'Q2' has no option 'Yes' there: known are \"Don't know\", 'Ja', 'Nein'" in said
    done(*site(questions, sav, german))
    wanted, _ = expected(people(), 276, "Q2", [1, 2, -1])
    shares = Site.open(tmp_path / "site").survey.preferences("Germany").shares
    np.testing.assert_allclose(shares[3:], wanted, atol=1e-7)


def test_small_cells_are_left_out(sav: Path, map_: Path, questionnaire: Path) -> None:
    _, effective = expected(people(), 276, "Q1", [1, 2, 3])
    _, other = expected(people(), 276, "Q2", [1, 2, -1])
    assert effective < 113 < other
    said = done(*site(questionnaire, sav, map_, "--min-respondents", "113"))
    assert "fewer than 113 effective respondents" in said
    assert "1 of 2 questions answered" in said


def test_weights_of_zero_and_a_few_missing_ones_are_counted(
    map_: Path, questionnaire: Path, tmp_path: Path
) -> None:
    frame = people().assign(COUNTRY=276.0)
    frame.loc[:3, "W"] = 0
    frame.loc[4:6, "W"] = np.nan
    WRITERS["sav"][1](frame, tmp_path / "other.sav")
    done(*site(questionnaire, tmp_path / "other.sav", map_))
    ledger = pd.read_csv(tmp_path / "site.left-out.csv")
    whole = ledger[ledger["question_id"].isna()].set_index("reason")["people"]
    assert whole.to_dict() == {"no weight": 3, "weight 0": 4}
