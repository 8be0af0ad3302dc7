"""Which layout of OpinionQA a file or directory has."""

from pathlib import Path

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import SurveyContent
from pluralllm_app.survey.sources.opinionqa.records import read_records
from pluralllm_app.survey.sources.opinionqa.tables import read_tables
from pluralllm_app.survey.sources.table_files import bare_name


def read_opinionqa(path: Path, encoding: str | None = None) -> SurveyContent:
    """Read a .json file of records, a file *_default_human.csv, or a directory with such files.

    Args:
        path: a file may be compressed by gzip, as a .json file may have the ending .gz as well.
        encoding: of files that are not in Unicode, if the user states it.

    Raises:
        SurveyError: there is no such file, it has another layout, or something in it is malformed;
            the message has the place.
    """
    if not path.exists():
        raise SurveyError(f"{path} does not exist: check --file")
    ending = Path(bare_name(path)).suffix.lower()
    if path.is_dir() or ending == ".csv":
        return read_tables(path, encoding)
    if ending == ".json":
        return read_records(path, encoding)
    raise SurveyError(
        f"{path} is in no layout of OpinionQA: pass a .json file of records, a file that ends in "
        "_default_human.csv, or the directory of the official data"
    )
