"""Questions to which a group gave one answer alone: people are told, others may be lost."""

import numpy as np

from pluralllm_app.core.segments import segment_starts
from pluralllm_app.core.wording import many
from pluralllm_app.survey.content import SurveyContent


def one_sided(survey: SurveyContent) -> list[str]:
    """Return a line on the answers in which one option has all of the shares, none without any.

    Nothing is lost of a synthetic survey. Of a variable coded 1 or blank, everybody says "Yes"
    where nothing says what a blank is.
    """
    answers, questions = survey.answers, survey.questions
    starts = segment_starts(questions.counts[answers.question])
    found = np.flatnonzero(np.maximum.reduceat(answers.shares, starts) == 1)
    if survey.synthetic or not len(found):
        return []
    first = int(found[0])
    number = int(answers.question[first])
    options = questions.options[number]
    option = int(np.argmax(answers.shares[starts[first] :][: len(options)]))
    return [
        f"in {len(found):,} of {many(len(answers), 'answer')} everybody picked one option, first "
        f"in that of {answers.groups[int(answers.group[first])]!r} to {questions.ids[number]!r}: "
        f"{options[option]!r} has 100 %. See that no answers of others are missing"
    ]
