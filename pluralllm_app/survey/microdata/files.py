"""Files with one row per person, of whatever kind, read in batches of rows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Timer
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.parts import need
from pluralllm_app.core.segments import Doubles
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.variables import (
    Coded,
    Dictionary,
    MultipleSet,
    Variable,
    coded,
)
from pluralllm_app.survey.sources.cell_texts import cell_text
from pluralllm_app.survey.sources.numbers import Numbers
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import TableReader, bare_name
from pluralllm_app.survey.sources.table_rows import row_numbers

STATISTICS = (".sav", ".zsav", ".dta", ".por")  # of SPSS and Stata
PATIENCE = 600.0  # seconds for a batch; of a large file, all that is before it is passed over
_CHILD = "pluralllm_app.survey.microdata.child"


@dataclass(frozen=True, eq=False)
class People:
    """Some rows of the file."""

    first: int  # number of the first row, from 0
    size: int  # how many rows
    codes: dict[str, Coded]  # of the columns that were asked for as codes
    numbers: dict[str, Doubles]  # and as numbers: [n], NaN where there is none


class Microdata(Protocol):
    """A file with one row per person."""

    file: Path
    notes: list[str]  # what was found out about it

    @property
    def dictionary(self) -> Dictionary:
        """What the file says of its variables."""

    def read(self, codes: Sequence[str], numbers: Sequence[str] = ()) -> Iterator[People]:
        """Yield all rows in batches, with the named columns.

        Raises:
            SurveyError: the file is damaged, or a column of numbers holds something else.
        """


def open_microdata(file: Path, stated: Stated) -> Microdata:
    """Return the file, of which nothing but its kind has been checked.

    Raises:
        SurveyError: there is no such file.
    """
    if not file.is_file():
        raise SurveyError(f"{file} is not a file: check its path")
    if file.suffix.lower() in STATISTICS:
        need("microdata", f"reading {file.name}")
        return StatisticsFile(file, stated)
    return TableFile(file, stated)


def column_of(data: Microdata, name: str, what: str) -> str:
    """Return the name of a column as the file has it, however it is capitalised.

    Raises:
        SurveyError: there is no such column, or several.
    """
    known = data.dictionary.variables
    found = [own for own in known if own.casefold() == name.casefold()]
    if name in known:
        return name
    if len(found) == 1:
        return found[0]
    raise SurveyError(f"{data.file} has no {what} {name!r}: {did_you_mean(name, known)}")


@dataclass
class StatisticsFile:
    """A file of SPSS or Stata, read by another process."""

    file: Path
    stated: Stated
    notes: list[str] = field(default_factory=list)

    @cached_property
    def dictionary(self) -> Dictionary:
        """What the file says of its variables."""
        with self._started([], []) as child:
            said = self._line(child)
        variables = {
            own["name"]: Variable(
                name=own["name"],
                label=clean_text(own["label"]),
                labels={code: clean_text(text) for code, text in own["labels"]},
                missing=own["missing"],
                ranges=[(low, high) for low, high in own["ranges"]],
                measure=own["measure"],
            )
            for own in said["variables"]
        }
        sets = [MultipleSet(**own) for own in said["sets"]]
        return Dictionary(variables, [own for own in sets if set(own.variables) <= set(variables)])

    def read(self, codes: Sequence[str], numbers: Sequence[str] = ()) -> Iterator[People]:
        """Yield all rows in batches, with the named columns."""
        with self._started(codes, numbers) as child:
            texts = {own["name"] for own in self._line(child)["variables"] if own["text"]}
            if wrong := [name for name in numbers if name in texts]:
                raise SurveyError(f"{self.file}: {wrong[0]} holds texts, not numbers")
            first = 0
            try:
                for batch in _batches(child):
                    yield People(
                        first,
                        batch.num_rows,
                        {name: _coded(batch.column(f"code {name}")) for name in codes},
                        {name: _doubles(batch.column(f"number {name}")) for name in numbers},
                    )
                    first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise self._broken() from error
            if not first:
                raise SurveyError(f"{self.file} has no rows")

    @contextmanager
    def _started(
        self, codes: Sequence[str], numbers: Sequence[str]
    ) -> "Iterator[subprocess.Popen[bytes]]":
        given = {
            "file": str(self.file.resolve()),
            "encoding": self.stated.encoding,
            "codes": list(codes),
            "numbers": list(numbers),
        }
        command = [sys.executable, "-m", _CHILD, json.dumps(given)]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as child:
            try:
                yield child
            finally:
                child.kill()  # it has ended, unless this process was stopped or refuses the file

    def _line(self, child: "subprocess.Popen[bytes]") -> dict[str, Any]:
        assert child.stdout is not None
        with _patience(child):
            line = child.stdout.readline()
        try:
            said = json.loads(line)
        except ValueError:
            raise self._broken() from None
        if "twice" in said:
            raise SurveyError(
                f"{self.file} has two variables {said['twice']!r}: rename one in the program that "
                "wrote the file, and save it again"
            )
        if "fault" in said:
            raise SurveyError(
                f"cannot read {self.file}, it may be cut off or damaged ({said['fault']}): copy it "
                "again, or pass --encoding if its texts are in another one than it says"
            )
        return dict(said)

    def _broken(self) -> SurveyError:
        return SurveyError(
            f"cannot read {self.file}: it is damaged, and reading it failed: copy it again"
        )


@dataclass
class TableFile:
    """A table with one row per person, whose cells are codes or texts."""

    file: Path
    stated: Stated
    notes: list[str] = field(default_factory=list)

    @cached_property
    def dictionary(self) -> Dictionary:
        """The columns of the table, which says nothing else of them."""
        reader = TableReader(self.file, (), None, encoding=self.stated.encoding)
        next(iter(reader))
        # `read` refuses them by name.
        twice = [f"several columns {name!r}, not used" for name in reader.twice]
        self.notes += [*reader.notes, *twice]
        names = dict.fromkeys(filter(None, map(clean_text, reader.names)))
        return Dictionary({name: Variable(name) for name in names})

    def read(self, codes: Sequence[str], numbers: Sequence[str] = ()) -> Iterator[People]:
        """Yield all rows in batches, with the named columns."""
        signs = {name: self._sign(name) for name in numbers}
        kinds = {name: self._numbers(name) for name in numbers}
        for frame in self._frames([*codes, *numbers]):
            yield People(
                int(frame.index[0]),
                len(frame),
                {name: coded(frame[name]) for name in codes},
                {name: self._read(kinds[name], frame[name], signs[name]) for name in numbers},
            )

    def _read(self, numbers: Numbers, column: pd.Series, sign: str) -> Doubles:
        """Return numbers, NaN for blank cells alone."""
        read = numbers.read(column, row_numbers(column.index))[sign]
        for place in np.flatnonzero(~np.isfinite(read)).tolist():
            if text := cell_text(column.iloc[place]):
                raise SurveyError(
                    f"{self.file}: {numbers.column} is {text[:40]!r} in data row "
                    f"{column.index[place] + 1}, which is no finite number"
                )
        return read

    def _frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        wanted = list(dict.fromkeys(columns))
        return iter(TableReader(self.file, wanted, (), wanted, self.stated.encoding))

    def _numbers(self, column: str) -> Numbers:
        return Numbers(self.file, column, stated=self.stated.sign)

    def _sign(self, column: str) -> str:
        """Return the decimal sign of a column, for which all of it has to be read."""
        numbers = self._numbers(column)
        for frame in self._frames([column]):
            numbers.read(frame[column], row_numbers(frame.index))
        return numbers.decimal()


def _batches(child: "subprocess.Popen[bytes]") -> Iterator[pa.RecordBatch]:
    with _patience(child):
        reader = pa.ipc.open_stream(child.stdout)
    while True:
        with _patience(child):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextmanager
def _patience(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a process that writes nothing for too long: a damaged file may lead in a circle."""
    timer = Timer(PATIENCE, child.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _coded(column: pa.DictionaryArray) -> Coded:
    places = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return places, column.dictionary.to_pylist()


def _doubles(column: pa.Array) -> Doubles:
    doubles: Doubles = column.to_numpy(zero_copy_only=False)
    return doubles


def stem_of(file: Path) -> str:
    """Return the name of a file without its endings."""
    return Path(bare_name(file)).stem
