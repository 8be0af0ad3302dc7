"""OpinionQA in exactly the layout of its official repository."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.sources.opinionqa.layouts import read_opinionqa

WAVE = "American_Trends_Panel_W26"
FIVE_HUNDRED = "Pew_American_Trends_Panel_disagreement_500"
KEYS = ("SAFE_W26", "WORLD_W26", "WHY_W26")
REFERENCES = (
    ["Very safe", "Somewhat safe", "Not too safe", "Refused"],
    ["Safer", "More dangerous", "Neither", "Refused"],
    ["Protection", "Hunting", "Refused"],
)
ORDINALS = ([1.0, 2.0, 3.0], [1.0, 2.0, 1.5], [1, 1])


def info(survey: str | None = None) -> pd.DataFrame:
    """info.csv of a wave, or of the selected questions, which names the survey of each."""
    frame = pd.DataFrame(
        {
            "Unnamed: 0": range(3),
            "key": KEYS,
            "option_mapping": "{1.0: 'Very safe', 99.0: 'Refused'}",
            "question": [f"Question {key}?" for key in KEYS],
            "references": list(map(str, REFERENCES)),
            "option_ordinal": list(map(str, ORDINALS)),
        }
    )
    return frame if survey is None else frame.assign(survey=survey)


def human(shares: Callable[[np.ndarray], object]) -> pd.DataFrame:
    """A table of the notebook: an array is written as numpy prints it, a list with commas."""
    rows = []
    for key, numbers in zip(KEYS, ([0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.9, 0.1]), strict=True):
        for attribute, group in (
            ("Overall", "Overall"),
            ("SEX", "Female"),
            ("RACE", "Other"),
            ("POLPARTY", "Republican"),
        ):
            rows.append((key, attribute, group, shares(np.array(numbers)), 0.04))
    return pd.DataFrame(rows, columns=["qkey", "attribute", "group", "D_H", "R_H"])


def model() -> pd.DataFrame:
    """What the notebook keeps of models' answers: each question once for each model."""
    frame = pd.DataFrame(
        {
            "input_id": ["id0", "id1", "id2"],
            "question_raw": [f"Question {key}?" for key in KEYS],
            "references": list(map(str, REFERENCES)),
            "ordinal": list(map(str, ORDINALS)),
            "ordinal_refs": [str(own[:-1]) for own in REFERENCES],
            "refusal_refs": "['Refused']",
            "qkey": KEYS,
        }
    )
    return pd.concat([frame.assign(model_name=name) for name in ("ada", "davinci")])


RESPONSES = pd.DataFrame(
    [
        # Of the women who answered SAFE_W26, weights 1, 1 and 2: 4^2 / 6.
        ("Very safe", "Safer", "Hunting", "Female", "White", "Republican", 1.0),
        ("Somewhat safe", "Safer", "Hunting", "Female", "White", "Democrat", 1.0),
        ("Not too safe", "Refused", "", "Female", "Black", "Democrat", 2.0),
        ("Refused", "Neither", "", "Female", "Black", "Republican", 5.0),
        ("Very safe", "Neither", "", "Male", "Black", "Republican", 1.0),
        ("Very safe", "Neither", "", "Male", "Black", "Republican", ""),
    ],
    columns=[*KEYS, "SEX", "RACE", "POLPARTY", "WEIGHT_W26"],
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory `data` of the repository: texts and shares of a wave."""
    data = tmp_path / "data"
    (data / "distributions").mkdir(parents=True)
    (data / "human_resp" / WAVE).mkdir(parents=True)
    info().to_csv(data / "human_resp" / WAVE / "info.csv")
    human(np.array).to_csv(data / "distributions" / f"{WAVE}_default_human.csv")
    return data


def by_question(survey):
    """Shares and respondents of SEX_Female, by question."""
    answers = survey.answers
    counts = survey.questions.counts[answers.question]
    parts = np.split(answers.shares, np.cumsum(counts)[:-1])
    asked = [None] * len(answers) if answers.respondents is None else answers.respondents
    return {
        survey.questions.ids[question]: (share.tolist(), people)
        for group, question, share, people in zip(
            answers.group, answers.question, parts, asked, strict=True
        )
        if answers.groups[group] == "SEX_Female"
    }


def test_a_wave(data):
    survey = read_opinionqa(data)
    assert survey.questions.ids == sorted(KEYS)
    first = survey.questions.ids.index("SAFE_W26")
    assert survey.questions.texts[first] == "Question SAFE_W26?"
    assert survey.questions.options[first] == ["Very safe", "Somewhat safe", "Not too safe"]
    values = dict(zip(survey.questions.ids, survey.questions.values, strict=True))
    assert values == {"SAFE_W26": [1, 2, 3], "WORLD_W26": [1, 2, 1.5], "WHY_W26": None}
    assert survey.answers.groups == ["POLPARTY_Republican", "SEX_Female"]
    assert by_question(survey)["WORLD_W26"][0] == pytest.approx([0.1, 0.2, 0.7])
    assert survey.answers.respondents is None
    assert survey.dropped["answers of groups beyond the 22"] == 6
    assert survey.note == (
        "refusals left out, 4.0% of a group's answers on average; 1 questions without ordinal "
        "values"
    )


def test_a_single_file_with_commas(data, tmp_path):
    file = data / "distributions" / f"{FIVE_HUNDRED}_default_human.csv"
    human(np.ndarray.tolist).to_csv(file)
    (data / "human_resp" / FIVE_HUNDRED).mkdir()
    info(f"Pew_{WAVE}").to_csv(data / "human_resp" / FIVE_HUNDRED / "info.csv")
    alone = read_opinionqa(file)
    assert by_question(alone) == by_question(read_opinionqa(data))
    assert read_opinionqa(data).dropped["answers that an earlier file has"] == 6


def test_texts_from_the_table_of_a_model(data):
    before = read_opinionqa(data)
    (data / "human_resp" / WAVE / "info.csv").unlink()
    with pytest.raises(SurveyError, match=rf"lacks the texts: put human_resp/{WAVE}/info.csv or"):
        read_opinionqa(data)
    model().to_csv(data / "distributions" / f"{WAVE}_default_model.csv")
    after = read_opinionqa(data)
    assert after.questions == before.questions
    assert by_question(after) == by_question(before)


def test_the_layout_of_the_gpo_paper(data, tmp_path):
    (data / "OpinionsQA").mkdir()
    (data / "human_resp").rename(data / "OpinionsQA" / "human_resp")
    assert len(read_opinionqa(data).questions) == 3


def test_respondents_are_counted_where_persons_are_there(data):
    RESPONSES.to_csv(data / "human_resp" / WAVE / "responses.csv", index=False)
    asked = {key: people for key, (_, people) in by_question(read_opinionqa(data)).items()}
    assert asked["SAFE_W26"] == pytest.approx(16 / 6)
    assert asked["WORLD_W26"] == pytest.approx(7**2 / 27)
    assert asked["WHY_W26"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        ("D_H", "[0.5 0.5]", "question 'SAFE_W26' has 2 shares but 3 options"),
        ("D_H", "0.5 0.25 0.25", "question 'SAFE_W26' has a malformed 'D_H' cell"),
        ("D_H", "[a b c]", "malformed 'D_H' cell"),
        ("D_H", "[nan 0.5 0.5]", "question 'SAFE_W26': the shares must be at least 0 and sum to 1"),
        ("D_H", "[0.5 0.5 0.5]", r"sum to 1; 1 wrong answer, of which this"),
        ("qkey", "SAVE_W26", "question 'SAVE_W26' has no text"),
        ("qkey", "WORLD_W26", "group 'SEX_Female' has answered this question before"),
    ],
)
def test_malformed_tables_are_refused(data, column, cell, fault):
    file = data / "distributions" / f"{WAVE}_default_human.csv"
    frame = human(np.array)
    frame[column] = frame[column].astype(object)
    frame.loc[1, column] = cell  # of SEX_Female
    frame.to_csv(file)
    with pytest.raises(SurveyError, match=fault):
        read_opinionqa(data)


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        ("references", "Very safe", "question 'SAFE_W26' has a cell that is no list"),
        ("references", "['Very safe']", "needs one ordinal value for each option"),
        ("option_ordinal", "['a', 'b', 'c']", "needs one ordinal value for each option"),
    ],
)
def test_malformed_texts_are_refused(data, column, cell, fault):
    info().assign(**{column: cell}).to_csv(data / "human_resp" / WAVE / "info.csv")
    with pytest.raises(SurveyError, match=fault):
        read_opinionqa(data)


def test_missing_columns_and_files_are_named(data, tmp_path):
    file = data / "distributions" / f"{WAVE}_default_human.csv"
    human(np.array).drop(columns="R_H").to_csv(file)
    with pytest.raises(SurveyError, match="has no column 'R_H'"):
        read_opinionqa(data)
    with pytest.raises(SurveyError, match=r"no file that ends in _default_human\.csv: run the"):
        read_opinionqa(data / "human_resp")
