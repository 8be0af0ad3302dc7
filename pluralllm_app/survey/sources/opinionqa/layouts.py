"""Which layout of OpinionQA a file or directory has."""

from pathlib import Path

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.opinionqa.records import read_records
from pluralllm_app.survey.sources.opinionqa.tables import read_tables


def read_opinionqa(path: Path) -> SurveyContent:
    """Read a .json file of records, a file *_default_human.csv, or a directory with such files.

    Raises:
        SurveyError: there is no such file, it has another layout, or something in it is malformed;
            the message has the place.
    """
    if not path.exists():
        raise SurveyError(f"{path} does not exist: check --file")
    if path.is_dir() or path.suffix == ".csv":
        return read_tables(path)
    if path.suffix == ".json":
        return read_records(path)
    raise SurveyError(
        f"{path} is in no layout of OpinionQA: pass a .json file of records, a file that ends in "
        "_default_human.csv, or the directory of the official data"
    )
