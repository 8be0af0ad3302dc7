"""Reads a file of SPSS or Stata in a process of its own.

ReadStat, the library in C that does it, can be killed by a damaged file. Then this process dies,
and the command says so. It is started with a JSON object as its argument,

    python -m pluralllm_app.survey.microdata.child '{"file": ..., "encoding": ..., "codes": [...],
                                                     "numbers": [...]}'

and writes one line of JSON on the file, and then, if columns are named, batches of them as a stream
of Arrow: codes as texts, numbers as numbers. A fault is a line with the one key "fault", and a name
that two variables have is one with the key "twice".
"""

import json
import re
import resource
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyreadstat

from pluralllm_app.survey.microdata.variables import coded
from pluralllm_app.survey.sources.cell_texts import cell_text

CELLS = 2**23  # of a batch, at most
MEMORY = 2**30  # bytes that reading may take beside what Python itself and its libraries do
_TWICE = re.compile(r"column '(.*)' is duplicated, renamed to .*")  # a warning of pyreadstat
_SEVERAL = (".sav", ".zsav", ".dta")  # of which ReadStat tells user-defined missing values apart


def main(file: Path, encoding: str | None, codes: list[str], numbers: list[str]) -> None:
    """Write the line and the batches to standard output."""
    _limit_memory()
    kind = file.suffix.lower()
    readers: dict[str, Any] = {".dta": pyreadstat.read_dta, ".por": pyreadstat.read_por}
    read = readers.get(kind, pyreadstat.read_sav)
    options: dict[str, Any] = {"disable_datetime_conversion": True}
    if kind in _SEVERAL:
        options |= {"user_missing": True, "encoding": encoding}
    for doubt in (UserWarning, RuntimeWarning):  # those of other kinds are for programmers
        warnings.simplefilter("error", doubt)
    try:
        _, meta = read(str(file), metadataonly=True, **options)
        _say(_dictionary(meta))
        if codes or numbers:
            texts = {name for name in codes if meta.readstat_variable_types.get(name) == "string"}
            _write(partial(read, str(file), **options), codes, texts, numbers)
    except UserWarning as doubt:
        twice = _TWICE.fullmatch(str(doubt))
        _say({"twice": twice[1]} if twice else {"fault": str(doubt)})
    except Exception as error:  # whatever it is, the command says it and this process ends
        _say({"fault": f"{type(error).__name__}: {error}"})


def _limit_memory() -> None:
    status = Path("/proc/self/statm")
    if not status.exists():  # not on Linux
        return
    pages = int(status.read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:  # as on a machine that many share
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()


def _dictionary(meta: Any) -> dict[str, Any]:
    names = meta.column_names
    if None in names:
        raise ValueError("a variable has no name")
    variables = []
    for name in names:
        text = meta.readstat_variable_types.get(name) == "string"
        labels = meta.variable_value_labels.get(name, {})
        ranges = meta.missing_ranges.get(name, [])
        variables.append(
            {
                "name": name,
                "label": meta.column_names_to_labels.get(name) or "",
                "text": text,
                "labels": [[_code(code, text), str(said)] for code, said in labels.items()],
                "missing": [_code(own["lo"], text) for own in ranges if own["lo"] == own["hi"]],
                "ranges": [[own["lo"], own["hi"]] for own in ranges if own["lo"] != own["hi"]],
                "measure": meta.variable_measure.get(name) or "unknown",
            }
        )
    sets = [
        {
            "name": name,
            "label": own["label"] or "",
            "variables": own["variable_list"],
            "chosen": cell_text(own["counted_value"]) if own["is_dichotomy"] else None,
        }
        for name, own in (meta.mr_sets or {}).items()
    ]
    return {"variables": variables, "sets": sets}


def _code(code: Any, text: bool) -> str:
    """Return a code as a text; Stata names its missing values by letters."""
    return f".{code}" if isinstance(code, str) and not text else cell_text(code)


def _write(read: Any, codes: list[str], texts: set[str], numbers: list[str]) -> None:
    columns = list(dict.fromkeys([*codes, *numbers]))
    rows = max(1, CELLS // len(columns))
    kinds = [pa.dictionary(pa.int32(), pa.string())] * len(codes) + [pa.float64()] * len(numbers)
    names = [*(f"code {name}" for name in codes), *(f"number {name}" for name in numbers)]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as writer:
        done, more = 0, True
        while more:
            frame, _ = read(usecols=columns, row_offset=done, row_limit=rows)
            arrays = [_codes(frame[name], name in texts) for name in codes]
            arrays += [pa.array(pd.to_numeric(frame[name], errors="coerce")) for name in numbers]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            done += len(frame)
            more = len(frame) == rows


def _codes(column: pd.Series, text: bool) -> pa.Array:
    if not text and column.dtype == object:
        column = column.map(lambda cell: f".{cell}" if isinstance(cell, str) else cell)
    places, different = coded(column)
    indices = pa.array(places.astype(np.int32), mask=places < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(different, pa.string()))


def start(argument: str) -> None:
    """Do what the JSON of the command line says."""
    given = json.loads(argument)
    main(Path(given["file"]), given["encoding"], given["codes"], given["numbers"])


if __name__ == "__main__":
    start(sys.argv[1])
