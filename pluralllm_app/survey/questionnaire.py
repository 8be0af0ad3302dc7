"""A questionnaire: what all groups of a survey share, without any group's name or answers.

    survey.json without groups, questions.parquet, embeddings.safetensors

The server of a deployment needs one where its learner works with the text of the questions. It has
the fingerprint of the survey that it comes from, by which a run compares it with what its nodes
have.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.errors import SurveyError
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.survey.info import SurveyInfo
from pluralllm_app.survey.prepared import PreparedSurvey

DESCRIPTION, *CONTENT = ("survey.json", "questions.parquet", "embeddings.safetensors")


def write_questionnaire(survey: PreparedSurvey, out: Path) -> PreparedSurvey:
    """Write the questionnaire of a survey to the new directory `out`, and open it.

    Raises:
        SurveyError: the survey is not as it was prepared, or `out` exists already or cannot be
            written.
    """
    out = out.expanduser().resolve()
    if out.exists():
        raise SurveyError(f"{out} is there already: name another directory")
    survey.verify()
    try:
        with whole_directory(out) as fresh:
            for name in CONTENT:
                shutil.copyfile(survey.path / name, fresh / name)
            info = SurveyInfo.read(survey.path / DESCRIPTION)
            replace(info, groups=()).write(fresh / DESCRIPTION)
    except OSError as error:
        raise SurveyError(f"cannot write the questionnaire {out}: {error.strerror}") from error
    return PreparedSurvey.open(out)


def read_questions(path: Path, fingerprint: str) -> QuestionSet:
    """All questions of the survey or questionnaire at `path`.

    Raises:
        SurveyError: it cannot be opened, was changed, or is another than the one with this
            fingerprint, which the nodes have.
    """
    found = PreparedSurvey.open(path)
    if found.fingerprint != fingerprint:
        raise SurveyError(
            f"{path} is of another survey than the groups' nodes have (fingerprints "
            f"{found.fingerprint[:12]} and {fingerprint[:12]}): write it again from theirs with "
            "`pluralllm questionnaire`"
        )
    found.verify()
    return found.all_questions()
