"""Two columns of one name: neither is silently taken for the other."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pluralllm_app.survey.microdata.content import count_people
from pluralllm_app.survey.sources.stated import Stated
from tests.support.people import MAP, WRITERS, people
from tests.survey.test_making_sites import done, refused


@pytest.fixture
def map_(tmp_path: Path) -> Path:
    file = tmp_path / "map.toml"
    file.write_text(MAP, "utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sav", "zsav", "dta", "por"])
def test_a_file_of_spss_or_stata_is_refused(kind: str, map_: Path, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    write(people(), tmp_path / name)
    # Used or not: the programs write no such file.
    twice = (tmp_path / name).read_bytes().replace(b"Q2", b"Q1")
    (tmp_path / name).write_bytes(twice)
    fault = f"{name} has two variables 'Q1': rename one in the program that wrote the file"
    files = ("--file", tmp_path / name, "--map", map_, "--out", tmp_path / "out")
    assert fault in refused("prepare", "microdata", *files)
    assert fault in refused("questionnaire", tmp_path / name, "--out", tmp_path / "draft.toml")


def written(names: list[str], kind: str, folder: Path) -> Path:
    """A table of people with two columns more, whatever they are called."""
    frame = people().assign(X=1.0, Y=2.0)
    arrays = [pa.array(frame[name]) for name in frame]
    frame.columns = pd.Index([*frame.columns[:4], *names])
    file = folder / f"people.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_arrays(arrays, names=list(frame.columns)), file)
    elif kind == "xlsx":
        frame.to_excel(file, index=False)
    else:
        frame.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("kind", ["csv", "parquet", "xlsx"])
def test_a_table_may_have_them_where_they_are_not_used(
    kind: str, map_: Path, tmp_path: Path
) -> None:
    alone = count_people(written(["X", "Y"], kind, tmp_path), Stated(map=map_)).content
    file = written(["X", "x"], kind, tmp_path)
    content = count_people(file, Stated(map=map_)).content
    assert content.note.startswith("several columns 'X', not used; ")
    assert content.answers.shares.tolist() == alone.answers.shares.tolist()
    draft = ("--out", tmp_path / "draft.toml")
    assert f"{file.name} has two columns 'X' and 'x'" in refused("questionnaire", file, *draft)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet", "xlsx"])
@pytest.mark.parametrize("name", ["Q2", "W", "COUNTRY"])
def test_a_table_is_refused_where_they_are(
    kind: str, name: str, map_: Path, tmp_path: Path
) -> None:
    file = written(["X", name], kind, tmp_path)
    files = ("--file", file, "--map", map_, "--out", tmp_path / "out")
    assert f"{file.name} has two columns '{name}': remove one" in refused(
        "prepare", "microdata", *files
    )


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_columns_without_a_name_are_none(kind: str, tmp_path: Path) -> None:
    """Programs write them for the numbers of rows, and at the end of lines."""
    file = written(["", ""], kind, tmp_path)
    assert "a draft with 3 questions" in done("questionnaire", file, "--out", tmp_path / "map.toml")
