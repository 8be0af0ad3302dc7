"""A questionnaire: what all groups of a survey share, without any group's name or answers.

    survey.json without groups, questions.parquet, embeddings.safetensors

The server of a deployment needs one where its learner works with the text of the questions. It has
the fingerprint of the survey that it comes from, by which a run compares it with what its nodes
have.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.info import SurveyInfo
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.shared import Questionnaire

INFO = "survey.json"
SHARED = (INFO, "questions.parquet", "embeddings.safetensors")


@contextmanager
def shared_copy(
    survey: PreparedSurvey, out: Path, what: str, mode: int = 0o777
) -> Iterator[tuple[Path, Path]]:
    """Copy what all groups share to a new directory, to which the block may add.

    Args:
        survey: checked against its fingerprint first.
        out: the directory, there once the block has ended well.
        what: it will be, for messages.
        mode: of the directory.

    Yields:
        The directory as it is being made, and its final path.

    Raises:
        SurveyError: the survey is not as it was prepared, or `out` exists already or cannot be
            written.
    """
    out = out.expanduser().resolve()
    if out.exists():
        raise SurveyError(f"{out} is there already: name another directory")
    survey.verify()
    try:
        with whole_directory(out, mode=mode) as fresh:
            for name in SHARED:
                shutil.copyfile(survey.path / name, fresh / name)
            SurveyInfo.read(fresh / INFO).write(fresh / INFO)  # without a path of this machine
            yield fresh, out
    except OSError as error:
        raise SurveyError(f"cannot write the {what} {out}: {error.strerror}") from error


def write_questionnaire(survey: PreparedSurvey, out: Path) -> PreparedSurvey:
    """Write the questionnaire of a survey to the new directory `out`, and open it.

    Raises:
        SurveyError: see `shared_copy`.
    """
    with shared_copy(survey, out, "questionnaire") as (fresh, path):
        info = SurveyInfo.read(fresh / INFO)
        replace(info, groups=()).write(fresh / INFO)
    return PreparedSurvey.open(path)


def read_questionnaire(path: Path, fingerprint: str) -> Questionnaire:
    """What the survey or questionnaire at `path` says of the questions.

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
    return found.questionnaire()
