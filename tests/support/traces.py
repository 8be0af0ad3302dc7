"""What of a tiny survey could be found in bytes that hold something of it."""

from itertools import pairwise

import numpy as np

from pluralllm_app.survey.prepared import PreparedSurvey
from tests.conftest import OPTION_TEXT, QUESTION_TEXT


def traces(survey: PreparedSurvey) -> set[bytes]:
    """Texts, embeddings and shares as bytes, each too long to be found by chance.

    Embeddings by option and in each width of floats; shares each in digits and as float64, by
    question as float32, and by two questions as float16.
    """
    found = {QUESTION_TEXT.encode(), OPTION_TEXT.encode()}
    for width in (np.float16, np.float32, np.float64):
        found |= {row.tobytes() for row in survey.embeddings.astype(width)}
    for group in survey.groups:
        preferences = survey.preferences(group.name)
        shares, starts = preferences.shares, preferences.starts[1:]
        for share in shares:
            found |= {share.tobytes(), f"{share:.8f}".encode(), repr(float(share))[:10].encode()}
        questions = np.split(shares.astype(np.float32), starts)
        found |= {question.tobytes() for question in questions}
        found |= {np.concatenate(pair).astype(np.float16).tobytes() for pair in pairwise(questions)}
    return found
