"""Sets of boxes to tick that a file does not declare."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest

from pluralllm_app.survey.microdata.boxes import undeclared_sets
from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.files import open_microdata
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.microdata.variables import MultipleSet, Variable
from pluralllm_app.survey.sources.stated import Stated
from tests.survey.test_making_sites import done

TICKED = {"0": "Not selected", "1": "Selected"}
MEDIA = {
    "q7_1": "Where do you get news? Television",
    "q7_2": "Where do you get news? Telephone",
    "q7_10": "Where do you get news? Radio",
}


def sets(
    texts: Mapping[str, str],
    labels: Mapping[str, str],
    codes: Sequence[str] = ("0", "1"),
) -> list[MultipleSet]:
    """The sets among variables, all with the same labels of codes."""
    variables = {name: Variable(name, text, labels) for name, text in texts.items()}
    return undeclared_sets(variables, dict.fromkeys(texts, codes), load_profile(None))


def test_boxes_of_one_question_are_a_set() -> None:
    (own,) = sets({"q7_10": MEDIA["q7_10"], "age_1": "Age"} | MEDIA, TICKED)
    assert (own.name, own.label, own.chosen) == ("q7", "Where do you get news?", "1")
    assert own.variables == ["q7_1", "q7_2", "q7_10"]
    assert own.options == {"q7_1": "Television", "q7_2": "Telephone", "q7_10": "Radio"}


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ({"1": "Yes", "2": "No"}, "1"),
        ({"1": "nicht genannt", "2": "genannt", "9": "Keine Angabe"}, "2"),
        ({"0": "Não mencionado", "1": "Mencionado"}, "1"),
        ({"1": "未选中", "2": "选中"}, "2"),
        ({"1": "Selected"}, "1"),  # an empty cell is the other answer
    ],
)
def test_labels_say_which_code_is_the_ticked_one(labels: dict[str, str], chosen: str) -> None:
    (own,) = sets(MEDIA, labels, tuple(labels))
    assert own.chosen == chosen


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (MEDIA, {"1": "Male", "2": "Female"}),  # no boxes, as of the persons of a household
        (MEDIA, {"1": "Yes", "2": "No", "3": "Both"}),
        ({"q1": "Do you smoke?", "q2": "Are you happy?", "q3": "Have you voted?"}, TICKED),
        ({name: MEDIA[name] for name in ("q7_1", "q7_2")}, TICKED),  # too few to tell
        ({"tv": MEDIA["q7_1"], "phone": MEDIA["q7_2"], "radio": MEDIA["q7_10"]}, TICKED),
    ],
)
def test_questions_of_their_own_are_no_set(texts: dict[str, str], labels: dict[str, str]) -> None:
    assert not sets(texts, labels)


def test_two_sets_may_have_one_stem() -> None:
    texts = {f"v{number}": f"News: {name}" for number, name in enumerate("ABC", 11)}
    texts |= {f"v{number}": f"Which have you met? {name}" for number, name in enumerate("DEF", 20)}
    news, met = sets(texts, TICKED)
    assert (news.name, news.label, news.variables) == ("v", "News", ["v11", "v12", "v13"])
    assert (met.name, met.variables) == ("v20", ["v20", "v21", "v22"])


def test_questions_that_begin_alike_are_sets_of_their_own() -> None:
    news, life = "Where do you get news?", "Where do you live?"
    texts = {f"q{number}": f"{news} {name}" for number, name in enumerate("ABC", 1)}
    texts |= {f"q{number}": f"{life} {name}" for number, name in enumerate("DEF", 4)}
    found = sets(texts, {"1": "Yes"}, ("1",))
    assert [own.label for own in found] == [news, life]
    assert [[*own.options.values()] for own in found] == [["A", "B", "C"], ["D", "E", "F"]]


def test_the_option_may_be_in_the_label_of_the_code() -> None:
    options = {"q7_1": "Television", "q7_2": "Telephone", "q7_10": "Radio"}
    text = "Where do you get news?"
    variables = {name: Variable(name, text, {"1": option}) for name, option in options.items()}
    (own,) = undeclared_sets(variables, dict.fromkeys(options, ("1",)), load_profile(None))
    assert (own.label, own.options) == (text, options)


def test_a_set_counts_what_its_variables_would_alone(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    rows = ["1,0,,0", "0,1,1,0", "1,,1,0", "0,0,0,0", ",,,"] * 40  # nobody ticked the last
    file.write_text("\n".join(["m_1,m_2,m_3,m_4", *rows]))
    draft = draft_map(open_microdata(file, Stated()), load_profile(None), tmp_path / "map.toml")
    assert draft.guessed == ["m_1 to m_4"]
    (own,) = tomllib.loads(draft.text)["set"]
    single = [
        f'[[question]]\nid = "{name}"\nvariable = "{name}"\nquestion = "{name}"\n'
        'options = [{ code = 1, option = "Yes" }, { code = 0, option = "No" }]\n'
        for name in own["variables"]
    ]
    shares = []
    for text in (draft.text, "\n".join(single)):
        (tmp_path / "map.toml").write_text('weight = "none"\n' + text)
        counted = count_people(file, Stated(map=tmp_path / "map.toml"), "North")
        shares.append(counted.content.answers.shares)
    np.testing.assert_array_equal(*shares)
    assert shares[0].tolist()[:2] == [0.5, 0.5]  # of m_1: two of the four that have a code


@pytest.mark.slow
def test_a_zero_without_label_is_a_box_that_is_not_ticked(tmp_path: Path) -> None:
    pyreadstat.write_sav(
        pd.DataFrame({name: [1.0, 0.0] for name in MEDIA}),
        str(tmp_path / "people.sav"),
        column_labels=[*MEDIA.values()],
        variable_value_labels={name: {1: "Selected"} for name in MEDIA},
    )
    data = open_microdata(tmp_path / "people.sav", Stated())
    draft = draft_map(data, load_profile(None), tmp_path / "map.toml")
    (own,) = tomllib.loads(draft.text)["set"]
    assert (own["chosen"], own["not-chosen"]) == ([1], [0])
    assert own["left-out"] == [{"code": "missing", "reason": "no answer in the file"}]
    assert "code without label" not in draft.left_out


def test_the_command_names_the_sets(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("m_1,m_2,m_3\n1,0,1\n0,1,0\n")
    said = done("questionnaire", tmp_path / "people.csv", "--out", tmp_path / "map.toml")
    assert "m_1 to m_3 look like boxes of one question" in said
    assert "# A guess from names" in (tmp_path / "map.toml").read_text("utf-8")
