"""Puts OpinionQA together from the questions and answers that a layout has.

The groups are the 22 of the GPO paper (arXiv 2310.11523). They are slices of one panel and overlap:
a woman from the South is in two of them.

A question with an option that nobody in any group picked is left out. In a panel of thousands that
hardly happens, but published shares have it where texts were damaged on the way: an option with a
comma was cut in two ('Importan', 'ut not essential'), one in quotation marks was not found, and
'None' was taken for a missing answer. Its true share is then spread over the other options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pluralllm_app.core.segments import Bools, segment_rows, segment_sums
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent

EVALUATION_FRACTION = 0.4  # of the groups, as in the GPO paper
SUM_TOLERANCE = 0.02  # how far the shares of an answer may be from 1 in total
# Attribute and value, as both layouts have them. "Other" is a value of several attributes.
GROUPS = (
    "CREGION_Northeast", "CREGION_South",
    "EDUCATION_College graduate/some postgrad", "EDUCATION_Less than high school",
    "INCOME_$100,000 or more", "INCOME_Less than $30,000",
    "POLIDEOLOGY_Conservative", "POLIDEOLOGY_Liberal", "POLIDEOLOGY_Moderate",
    "POLPARTY_Democrat", "POLPARTY_Republican",
    "RACE_Asian", "RACE_Black", "RACE_Hispanic", "RACE_White",
    "RELIG_Atheist", "RELIG_Hindu", "RELIG_Jewish", "RELIG_Muslim", "RELIG_Protestant",
    "SEX_Female", "SEX_Male",
)  # fmt: skip
_IN_WORDS = {
    "CREGION": "region",
    "EDUCATION": "education",
    "INCOME": "income",
    "POLIDEOLOGY": "political views",
    "POLPARTY": "party",
    "RACE": "race",
    "RELIG": "religion",
    "SEX": "sex",
}


@dataclass(frozen=True)
class Question:
    """What people were asked, without the options that refuse an answer."""

    text: str
    options: Sequence[str]
    values: Sequence[float] | None  # ordinal values; None if the options have no order


@dataclass(frozen=True)
class Answer:
    """How one of GROUPS answered one question."""

    place: str  # where it was read, for messages
    group: str
    question: str  # id
    shares: Sequence[float]  # of those who did not refuse; all 0 where everybody did
    respondents: float  # NaN if unknown


def survey_of(
    questions: Mapping[str, Question],
    answers: Sequence[Answer],
    dropped: Mapping[str, int],
    note: str,
) -> SurveyContent:
    """Put a survey together.

    Args:
        questions: by id.
        answers: each to one of these questions, with a share for each of its options.
        dropped: what was left out so far, by reason.
        note: what became of refusals and ordinal values, in a few words.

    Raises:
        SurveyError: there is no answer, a group answers a question twice, or shares are negative,
            not finite or do not sum to 1.
    """
    if not answers:
        raise SurveyError(
            f"OpinionQA: no answer of any of its {len(GROUPS)} groups, which are written like "
            f"{GROUPS[0]!r}"
        )
    _refuse_second_answers(answers)
    ids = sorted({answer.question for answer in answers})
    names = sorted({answer.group for answer in answers})
    question_at, group_at = ({key: at for at, key in enumerate(keys)} for keys in (ids, names))
    counts = np.array([len(answer.shares) for answer in answers])
    shares = np.array([share for answer in answers for share in answer.shares], np.float64)
    sums = segment_sums(shares, counts)
    wrong = segment_sums(~(shares >= 0), counts) > 0  # NaN is not at least 0 either
    wrong |= ~(np.abs(sums - 1) <= SUM_TOLERANCE) & (sums != 0)
    if wrong.any():
        first = answers[int(np.flatnonzero(wrong)[0])]
        raise SurveyError(
            f"{first.place}: the shares must be at least 0 and sum to 1; "
            f"{many(int(wrong.sum()), 'wrong answer')}, of which this is the first"
        )
    asked = np.array([answer.respondents for answer in answers])
    survey = SurveyContent(
        name="OpinionQA",
        source="OpinionQA (Santurkar et al. 2023; Pew Research Center, American Trends Panel)",
        licence="terms of Pew Research Center for the American Trends Panel",
        questions=Questions(
            ids=ids,
            texts=[questions[id_].text for id_ in ids],
            options=[questions[id_].options for id_ in ids],
            values=[questions[id_].values for id_ in ids],
        ),
        answers=Answers(
            groups=names,
            group=np.array([group_at[answer.group] for answer in answers]),
            question=np.array([question_at[answer.question] for answer in answers]),
            shares=shares / np.repeat(np.where(sums > 0, sums, 1), counts),
            respondents=None if np.isnan(asked).all() else asked,
        ),
        dropped={**dropped, "answers that everybody refused": int((sums == 0).sum())},
        metric="wasserstein",
        evaluation_fraction=EVALUATION_FRACTION,
        names={name: _in_words(name) for name in names},
        note=note,
    )
    given = survey.answers.select(np.flatnonzero(sums > 0), survey.questions)
    survey = replace(survey, answers=given)
    return survey.keep_questions(_picked(survey), "questions with an option that nobody picked")


def _picked(survey: SurveyContent) -> Bools:
    """Whether each option of a question was picked in some group, [Q]."""
    answers, counts = survey.answers, survey.questions.counts
    first_rows = survey.questions.first_rows[answers.question]
    most = np.zeros(int(counts.sum()))
    np.maximum.at(most, segment_rows(first_rows, counts[answers.question]), answers.shares)
    picked: Bools = segment_sums(most == 0, counts) == 0
    return picked


def _refuse_second_answers(answers: Sequence[Answer]) -> None:
    seen: set[tuple[str, str]] = set()
    for answer in answers:
        if (answer.group, answer.question) in seen:
            raise SurveyError(
                f"{answer.place}: group {answer.group!r} has answered this question before: keep "
                "one of its answers"
            )
        seen.add((answer.group, answer.question))


def _in_words(group: str) -> str:
    attribute, _, value = group.partition("_")
    return f"People in the United States, {_IN_WORDS[attribute]}: {value}"
