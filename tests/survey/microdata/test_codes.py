"""Codes of several kinds: missing values of Stata, sets of variables, scales, merged options."""

import re
import struct
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.files import open_microdata
from pluralllm_app.survey.microdata.mapping import read_map
from pluralllm_app.survey.microdata.profiles import PROFILES, load_profile
from pluralllm_app.survey.one_sided import one_sided
from pluralllm_app.survey.sources.stated import Stated
from tests.survey.microdata.test_counting import shares_of

pytestmark = pytest.mark.slow

HEAD = 'weight = "none"\n'
FEW = 1  # respondents


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "map.toml"
    file.write_text(HEAD + text, "utf-8")
    return file


def draft(file: Path, profile: str | None = None) -> dict[str, dict[str, object]]:
    """The entries of a draft, by id; it can be read as a map."""
    out = file.with_name("draft.toml")
    made = draft_map(open_microdata(file, Stated()), load_profile(profile), out)
    out.write_text(made.text, "utf-8")
    read_map(out)
    content = tomllib.loads(made.text)
    return {own["id"]: own for key in ("question", "set") for own in content.get(key, [])}


def test_missing_values_of_stata_are_kept_apart(tmp_path: Path) -> None:
    vote = pd.Series([1.0, 1.0, 2.0, "d", "i", "i", "n", np.nan], dtype=object)
    pyreadstat.write_dta(
        pd.DataFrame({"vote": vote}),
        str(tmp_path / "gss.dta"),
        missing_user_values={"vote": ["d", "i", "n"]},
        variable_value_labels={"vote": {1: "yes", 2: "no", "d": "don't know", "i": "iap"}},
    )
    own = draft(tmp_path / "gss.dta", "gss")["vote"]
    assert own["options"] == [{"code": 1, "option": "yes"}, {"code": 2, "option": "no"}]
    assert own["left-out"] == [
        {"code": ".d", "reason": "don't know"},
        {"code": ".i", "reason": "not asked"},
        {"code": ".n", "reason": "no answer"},  # without a label, by the profile
    ]
    stated = Stated(map=tmp_path / "draft.toml", weight="none", min_respondents=FEW)
    found = count_people(tmp_path / "gss.dta", stated, "Americans")
    assert shares_of(found.content, "Americans", "vote")[0] == pytest.approx([2 / 3, 1 / 3])
    assert {own.reason: own.people for own in found.left_out} == {
        "don't know": 1,
        "not asked": 2,
        "no answer": 1,
        "no answer in the file": 1,
    }


def with_sets(file: Path, sets: str) -> None:
    """Put a record of multiple response sets into a file, which pyreadstat cannot write."""
    content = file.read_bytes()
    at = content.index(struct.pack("<ii", 999, 0))  # the end of the dictionary
    record = struct.pack("<iiii", 7, 7, 1, len(sets)) + sets.encode()
    file.write_bytes(content[:at] + record + content[at:])


@pytest.mark.parametrize("empty", [True, False])
def test_each_option_of_a_set_is_a_question(tmp_path: Path, empty: bool) -> None:
    """The last person was not asked, the one before picked nothing or only the second."""
    no = np.nan if empty else 0.0
    frame = pd.DataFrame({"m1": [1, 1, no, np.nan], "m2": [1, no, 1, np.nan]}, dtype=np.float64)
    labels = {"m1": "Newspapers", "m2": "Blogs"}
    file = tmp_path / "media.sav"
    pyreadstat.write_sav(frame, str(file), column_labels=labels)
    with_sets(file, "$media=D1 1 23 What do you read daily? m1 m2\n")
    own = draft(file)["media"]
    assert own["question"] == "What do you read daily?"
    assert own["not-chosen"] == (["missing"] if empty else [0])
    stated = Stated(map=tmp_path / "draft.toml", weight="none", min_respondents=FEW)
    found = count_people(file, stated, "Readers")
    assert found.content.questions.texts == [
        "What do you read daily? Newspapers",
        "What do you read daily? Blogs",
    ]
    for variable in ("m1", "m2"):
        shares, respondents = shares_of(found.content, "Readers", f"media:{variable}")
        assert shares == pytest.approx([2 / 3, 1 / 3])
        assert respondents == 3
    assert {(own.question, own.reason, own.people) for own in found.left_out} == {
        ("media:m1", "not asked", 1),
        ("media:m2", "not asked", 1),
    }


SET = """
[[set]]
id = "media"
question = "What do you read?"
variables = ["m1", "m2"]
options = [{ variable = "m1", option = "Papers" }, { variable = "m2", option = "Blogs" }]
"""


@pytest.mark.parametrize("lines", ["chosen = [1]", "chosen = [1]\nnot-chosen = [0]"])
def test_empty_cells_of_a_set_have_to_be_explained(lines: str, tmp_path: Path) -> None:
    """Of three people asked, two read papers; the last one was not asked."""
    frame = pd.DataFrame({"m1": [1, 1, None, None], "m2": [1, None, 1, None]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    stated = Stated(map=written(tmp_path, f"{SET}{lines}\n"), min_respondents=FEW)
    fault = "m1 is empty for 1 person, first in data row 3; m2 is empty for 1 person"
    with pytest.raises(SurveyError, match=fault) as refused:
        count_people(tmp_path / "x.csv", stated, "G")
    assert 'not-chosen = ["missing"] if an empty cell means "not picked"' in str(refused.value)

    written(tmp_path, SET + 'chosen = [1]\nnot-chosen = ["missing"]\n')
    found = count_people(tmp_path / "x.csv", stated, "G").content
    assert shares_of(found, "G", "media:m1") == (pytest.approx([2 / 3, 1 / 3]), 3)
    assert one_sided(found) == []

    reason = 'left-out = [{ code = "missing", reason = "not asked" }]\n'
    written(tmp_path, SET + "chosen = [1]\n" + reason)
    found = count_people(tmp_path / "x.csv", stated, "G").content
    assert shares_of(found, "G", "media:m1") == ([1, 0], 2)
    assert one_sided(replace(found, synthetic=True)) == []
    (said,) = one_sided(found)
    assert (
        "in 2 of 2 answers everybody picked one option, first in that of 'G' to 'media:m1'" in said
    )


def test_a_set_whose_variables_hold_codes_of_options(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 1, 9, None], "b": [3, None, None, None, None]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    text = """
[[set]]
id = "s"
question = "Which?"
variables = ["a", "b"]
options = [{ code = 1, option = "A" }, { code = 2, option = "B" }, { code = 3, option = "C" }]
left-out = [{ code = 9, reason = "refused" }]
yes = "Ja"
no = "Nein"
"""
    stated = Stated(map=written(tmp_path, text), min_respondents=FEW)
    found = count_people(tmp_path / "x.csv", stated, "G")
    shares = [shares_of(found.content, "G", f"s:{code}")[0] for code in (1, 2, 3)]
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3], [1 / 3, 2 / 3], [1 / 3, 2 / 3]])
    assert found.content.questions.options[0] == ["Ja", "Nein"]
    assert sum(own.people for own in found.left_out if own.reason == "refused") == 3
    assert sum(own.people for own in found.left_out if own.reason == "not asked") == 3


def test_scales_with_labels_at_their_ends(tmp_path: Path) -> None:
    scale = pd.Series([*range(11), 77, 88, 99, 99], dtype=np.float64)
    labels = {0: "Not at all", 10: "Completely", 77: "Refusal", 88: "Don't know", 99: "No answer"}
    frame = pd.DataFrame({"trust": scale, "age": scale + 18, "other": scale * 0 + [1, 2, 3] * 5})
    pyreadstat.write_sav(
        frame,
        str(tmp_path / "ess.sav"),
        variable_value_labels={
            "trust": labels,
            "age": {117: "No answer"},
            "other": {1: "Other", 2: "Other", 3: "None"},
        },
        variable_measure={"trust": "scale"},
    )
    found = draft(tmp_path / "ess.sav", "ess")
    assert set(found) == {"trust", "age", "other"} - {"age"}
    options = found["trust"]["options"]
    assert [own["code"] for own in options] == list(range(11))  # type: ignore[attr-defined]
    assert found["trust"]["ordered"] is True
    # Labels that collide are two options until somebody says that they are one.
    texts = [own["option"] for own in found["other"]["options"]]  # type: ignore[attr-defined]
    assert texts == ["Other (1)", "Other (2)", "None"]


def test_codes_without_labels_that_lie_apart_are_doubted(tmp_path: Path) -> None:
    frame = {
        "a": [1, 2, 3, 8, 9],
        "b": [6, 7, 8, 9, 10],
        "c": [1, 2, -1, 2, 98],
        "d": [1, 2, 5, 1, 1],
    }
    pd.DataFrame(frame).to_csv(tmp_path / "x.csv", index=False)
    draft(tmp_path / "x.csv")
    text = (tmp_path / "draft.toml").read_text("utf-8")
    found = re.findall(
        r'variable = "(.)"(?:(?!\[\[)[^#])*# without labels: if ([-0-9, ]+) mean', text
    )
    assert found == [("a", "8, 9"), ("c", "-1, 98")]


def test_options_may_be_merged_and_scales_stay_reversed(tmp_path: Path) -> None:
    pd.DataFrame({"q": [1, 2, 3, 3]}).to_csv(tmp_path / "x.csv", index=False)
    text = """
[[question]]
id = "q"
variable = "q"
question = "How good?"
ordered = true
options = [{ code = 3, option = "Good" }, { code = [1, 2], option = "Bad", value = 1.5 }]
"""
    stated = Stated(map=written(tmp_path, text), min_respondents=FEW)
    found = count_people(tmp_path / "x.csv", stated, "G")
    assert shares_of(found.content, "G", "q")[0] == [0.5, 0.5]
    assert found.content.questions.values == [[3.0, 1.5]]


QUESTION = '[[question]]\nid = "q"\nvariable = "q"\nquestion = "Good?"\n'
SCALE = (
    "ordered = true\n"
    'options = [{ code = 1, option = "Yes" }, { code = 2, option = "No" }, '
    '{ code = 8, option = "Don\'t know" }]\n'
)
TWO = 'options = [{ code = 1, option = "Yes" }, { code = 2, option = "No" }]\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no [[question]]"),
        ("[[question", "cannot read the map"),
        ("questoin = 1", "has 'questoin': did you mean 'question'"),
        (QUESTION, "question 'q' has 0 options but needs 2"),
        (QUESTION + TWO.replace("2", "1"), "mentions code '1' as option 'Yes' and as option 'No'"),
        (QUESTION + TWO.replace("No", "Yes"), "has option 'Yes' twice: put its codes into one"),
        (QUESTION + TWO.replace("2", "true"), "needs a code"),
        (QUESTION + TWO.replace("2", "[]"), "needs a code"),
        (QUESTION + TWO.replace("2", '"missing"'), "an empty cell is no answer"),
        (QUESTION + TWO.replace("code = 2, ", "code = 2, value = 1, "), "write ordered = true"),
        (QUESTION + "ordered = true\n" + TWO.replace("2", '"b"'), "needs value = its place"),
        (QUESTION + "ordered = 1\n" + TWO, "ordered is true or false"),
        (QUESTION + TWO + "left-out = [{ code = 3 }]", "needs reason = a text"),
        (QUESTION + TWO + "left-out = [3]", "left-out is a list of tables"),
        (QUESTION.replace("Good?", "f\u00c3\u00bcr?") + TWO, "UTF-8 that was read as"),
        (QUESTION + TWO + QUESTION + TWO, "map.toml: question id 'q' occurs twice"),
        (
            QUESTION + SCALE,
            'option "Don\'t know" reads like "don\'t know", and would be at place 8',
        ),
        (SET, "has a variable, so the set needs chosen ="),
        (SET.split("options")[0] + "chosen = [1]", "needs options = [{ variable ="),
        (
            SET.replace('["m1", ', '["m1", "m3", "m4", ') + "chosen = [1]",
            "no option for 'm3', 'm4'",
        ),
    ],
)
def test_faults_of_a_map_are_named(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match=re.escape(fault)):
        read_map(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (SCALE.replace("code = 8, ", "code = 8, value = 1.5, "), [1, 2, 1.5]),
        (SCALE.replace("true", "false"), None),
    ],
)
def test_a_place_for_who_does_not_know_has_to_be_said(
    text: str, values: list[float] | None, tmp_path: Path
) -> None:
    (question,) = read_map(written(tmp_path, QUESTION + text)).questions
    assert question.values == values


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_can_be_loaded(name: str) -> None:
    profile = load_profile(name)
    assert profile.weights
    assert set(profile.codes.values()) <= set(profile.labels)
    assert profile.reason("8", "Don\u2019t know (DO NOT READ)") == "don't know"


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("DK/NA", "don't know"),
        ("-1. dont know", "don't know"),
        ("Wei\u00df nicht", "don't know"),
        ("KEINE ANGABE", "no answer"),
        ("(VOL.) Refused", "refused"),
        ("Not asked in survey", "not asked"),
        ("No", ""),
        ("None", ""),
        ("I don't know any of them", ""),
        ("8", ""),
    ],
)
def test_labels_that_are_no_answers(label: str, reason: str) -> None:
    assert load_profile(None).reason("8", label) == reason


def test_codes_count_where_there_is_no_label() -> None:
    wvs = load_profile("wvs")
    assert wvs.reason("-4", "") == "not asked"
    assert wvs.reason("-4", "Strongly against") == ""
    with pytest.raises(SurveyError, match="did you mean 'wvs'"):
        load_profile("wsv")
