"""A questionnaire: what all groups of a survey share, without any group's name or answers.

    survey.json without groups, questions.parquet, embeddings.safetensors

It can be published. Each group makes its site from it and from a file of its own answers, and the
server of a deployment needs it where its learner works with the text of the questions. Its
fingerprint is that of every survey with the same questions and embeddings, by which a run compares
it with what its nodes have.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pluralllm_app.core.atomic import whole_directory
from pluralllm_app.core.segments import Halves
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.info import SurveyInfo
from pluralllm_app.survey.prepared import PreparedSurvey, check_questions, write_shared
from pluralllm_app.survey.shared import About, Questionnaire

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
    survey.verify()
    with new_directory(out, what, mode) as (fresh, path):
        for name in SHARED:
            shutil.copyfile(survey.path / name, fresh / name)
        SurveyInfo.read(fresh / INFO).write(fresh / INFO)  # without a path of this machine
        yield fresh, path


@contextmanager
def new_directory(out: Path, what: str, mode: int = 0o777) -> Iterator[tuple[Path, Path]]:
    """Make a new directory, there once the block has ended well; arguments as in `shared_copy`."""
    out = checked_place(out)
    try:
        with whole_directory(out, mode=mode) as fresh:
            yield fresh, out
    except OSError as error:
        raise SurveyError(f"cannot write the {what} {out}: {error.strerror}") from error


def checked_place(out: Path) -> Path:
    """Return the absolute path of a directory to be made.

    Raises:
        SurveyError: something is there.
    """
    out = out.expanduser().resolve()
    if out.exists():
        raise SurveyError(f"{out} is there already: name another directory")
    return out


def write_questionnaire(survey: PreparedSurvey, out: Path) -> PreparedSurvey:
    """Write the questionnaire of a survey to the new directory `out`, and open it.

    Raises:
        SurveyError: see `shared_copy`.
    """
    with shared_copy(survey, out, "questionnaire") as (fresh, path):
        info = SurveyInfo.read(fresh / INFO)
        replace(info, groups=()).write(fresh / INFO)
    return PreparedSurvey.open(path)


def make_questionnaire(
    out: Path, about: About, questions: Questions, embeddings: Halves
) -> PreparedSurvey:
    """Write a questionnaire without a survey to the new directory `out`, and open it.

    Args:
        out: the directory.
        about: what it says of itself.
        questions: Q of them, with R options in all.
        embeddings: float16 [R, dim].

    Raises:
        SurveyError: the questions or embeddings are unsound, or `out` exists already or cannot be
            written.
    """
    check_questions(about.metric, questions, embeddings)
    with new_directory(out, "questionnaire") as (fresh, path):
        write_shared(fresh, questions, embeddings)
        info = SurveyInfo(
            name=about.survey,
            metric=about.metric,
            embedder=about.embedder,
            template=about.template,
            dim=embeddings.shape[1],
            source=about.source,
            licence=about.licence,
            synthetic=about.synthetic,
            fingerprint=about.fingerprint,
            groups=(),
        )
        info.write(fresh / INFO)
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
