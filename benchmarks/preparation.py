"""Preparing surveys: `pluralllm prepare table` for many groups, and GlobalOpinionQA.

    python benchmarks/preparation.py --groups 100 1000 10000
    python benchmarks/preparation.py --groups --file global_opinions.csv
    python benchmarks/preparation.py --groups --people 10000000

With --people, a group makes its site of a file with one row per person: a weight and codes of three
questions, in CSV and as of SPSS and Stata. The peak is that of the command and of the process that
reads files of SPSS and Stata for it, each alone.

The table is random: 500 questions of 4 options, one row for each group, question and option. It is
written in parts, so that memory is that of the preparation alone: the peak of resident memory of
its process, of which the program itself takes some 340 MiB. The embedding is the default, hashing.

The common way of reading GlobalOpinionQA is a loop over the rows of a pandas frame that parses
each cell with ast.literal_eval; the shares are checked to be the same. The whole preparation but
the embedding is reading, the fingerprint, and writing all countries with a ready table of DIM
numbers for each option, the width of all-MiniLM-L6-v2.
"""

import ast
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pyreadstat
from measuring import Results, paired, parse, publish, seconds

from pluralllm_app.core.segments import Halves
from pluralllm_app.survey.content import question_id
from pluralllm_app.survey.prepared import write_survey
from pluralllm_app.survey.sources.globalopinionqa import read_global_opinions

QUESTIONS, OPTIONS = 500, 4
DIM = 384
REPEATS = 5
PART = 100  # groups written at a time: 200,000 rows


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--groups", type=int, nargs="*", default=[100, 1000, 10_000]),
            parser.add_argument("--people", type=int, help="rows of a file with one per person"),
            parser.add_argument("--file", type=Path, help="a copy of GlobalOpinionQA"),
        ),
    )
    results: Results = {}
    for groups in arguments.groups:
        results |= measure_table(groups)
    if arguments.people:
        results |= measure_people(arguments.people)
    if arguments.file:
        results |= measure_global_opinions(arguments.file)
    publish("preparation", results, arguments.json)


def measure_table(groups: int) -> Results:
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "table.parquet"
        write_table(table, groups)
        rows = groups * QUESTIONS * OPTIONS
        seconds, peak = measured("prepare", "table", "--file", table, "--out", f"{place}/survey")
    own = f"{groups} groups, {rows:,} rows: "
    return {
        own + "prepare table, s": seconds,
        own + "peak MiB": peak,
    }


def measured(*arguments: object) -> tuple[float, float]:
    """Seconds of a `pluralllm` command, and the peak in MiB of it or of a process that it starts.

    A process in between starts it, so that the peak is not that of an earlier child.
    """
    script = (
        "import json, resource, subprocess, sys, time; start = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([time.perf_counter() - start, usage.ru_maxrss]))"
    )
    command = [str(Path(sys.executable).with_name("pluralllm")), *map(str, arguments)]
    shown = subprocess.run(
        [sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE
    ).stdout
    seconds, peak_kib = json.loads(shown)
    return seconds, peak_kib / 2**10


def measure_people(rows: int) -> Results:
    results: Results = {}
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"w": rng.uniform(0.5, 2, rows).round(3)})
    for name in ("q1", "q2", "q3"):
        frame[name] = rng.integers(1, OPTIONS + 1, rows).astype(np.float64)
    with tempfile.TemporaryDirectory() as place:
        map_, questions = Path(place) / "map.toml", Path(place) / "questions"
        options = ", ".join(
            f'{{ code = {n}, option = "Answer {n}" }}' for n in range(1, OPTIONS + 1)
        )
        entry = '[[question]]\nid = "{0}"\nvariable = "{0}"\nquestion = "{0}?"\noptions = [{1}]\n'
        entries = [entry.format(name, options) for name in ("q1", "q2", "q3")]
        map_.write_text('weight = "w"\n' + "".join(entries), "utf-8")
        measured("questionnaire", map_, "--out", questions)
        for kind, write in {
            ".csv": lambda file: pa.csv.write_csv(pa.Table.from_pandas(frame), file),
            ".sav": lambda file: pyreadstat.write_sav(frame, file),
            ".dta": lambda file: pyreadstat.write_dta(frame, file),
        }.items():
            file = str(Path(place) / f"people{kind}")
            write(file)
            made = ("--group", "North", "--map", map_, "--out", f"{place}/site{kind}")
            seconds, peak = measured("site", "create", questions, "--file", file, *made)
            own = f"{rows:,} people in {kind}, "
            results |= {own + "site create, s": seconds, own + "peak MiB": peak}
            results[own + "MiB of the file"] = Path(file).stat().st_size / 2**20
            Path(file).unlink()
    return results


def write_table(file: Path, groups: int) -> None:
    """A long table, group by group: ids and texts of ordinary length, and the share."""
    rng = np.random.default_rng(0)
    numbers = range(QUESTIONS)
    options = ["Agree", "Rather agree", "Rather disagree", "Disagree"]
    of_group = {
        "question_id": np.repeat([f"question-{number:04d}" for number in numbers], OPTIONS),
        "question": np.repeat([f"Question {n}: do you agree with that?" for n in numbers], OPTIONS),
        "option": np.tile(options, QUESTIONS),
    }
    schema = pa.schema([*((name, pa.string()) for name in [*of_group, "group"])])
    schema = schema.append(pa.field("share", pa.float64()))
    with pq.ParquetWriter(file, schema) as writer:
        for first in range(0, groups, PART):
            part = range(first, min(first + PART, groups))
            columns = [np.tile(column, len(part)) for column in of_group.values()]
            columns.append(np.repeat([f"Group {group:05d}" for group in part], QUESTIONS * OPTIONS))
            columns.append(rng.dirichlet(np.ones(OPTIONS), len(part) * QUESTIONS).ravel())
            writer.write_table(pa.table([pa.array(own) for own in columns], schema=schema))


def measure_global_opinions(file: Path) -> Results:
    found: Results = {}

    def ours() -> None:
        found["ours"] = read_global_opinions(file)

    def common() -> None:
        found["common"] = common_way(file)

    mine, theirs, ratio = paired(ours, common, REPEATS)
    survey = found["ours"]
    embeddings = (
        np.random.default_rng(0)
        .normal(size=(survey.questions.counts.sum(), DIM))
        .astype(np.float16)
    )
    whole = median(seconds(lambda: prepare(file, embeddings)) for _ in range(REPEATS))
    expected = {
        (question_id(text, list(map(_text, options)), source), country): shares
        for (text, options, source, country), shares in found["common"].items()
    }
    answers = survey.answers
    ends = np.cumsum(survey.questions.counts[answers.question])[:-1]
    shares = np.split(answers.shares, ends)
    for question, group, own in zip(answers.question, answers.group, shares, strict=True):
        key = (survey.questions.ids[question], answers.groups[group])
        np.testing.assert_allclose(own, expected.pop(key), rtol=0, atol=1e-15)
    assert not expected
    return {
        "GlobalOpinionQA: questions": len(survey.questions),
        "GlobalOpinionQA: answers": len(answers),
        "GlobalOpinionQA: reading, s": mine,
        "GlobalOpinionQA: reading, common way, s": theirs,
        "GlobalOpinionQA: reading, common way / ours": ratio,
        "GlobalOpinionQA: all but the embedding, s": whole,
    }


def prepare(file: Path, embeddings: Halves) -> None:
    """All that preparing every country takes but computing the embeddings."""
    survey = read_global_opinions(file)
    groups = [name for name, count in survey.answers.counts().items() if count]
    with tempfile.TemporaryDirectory() as place:
        write_survey(
            Path(place) / "survey",
            name=survey.name,
            metric="jensen-shannon",
            embedder="random",
            source=survey.source,
            licence=survey.licence,
            questions=survey.questions,
            embeddings=embeddings,
            answers=survey.answers,
            roles=dict.fromkeys(groups, "train"),
        )


Key = tuple[str, tuple[str | float, ...], str, str]


def common_way(file: Path) -> dict[Key, list[float]]:
    """Shares by question, options, source and country."""
    found: dict[Key, list[float]] = {}
    seen = set()
    for _, row in pd.read_csv(file, keep_default_na=False).iterrows():
        if not row["question"].strip() or not row["selections"].strip() or not row["options"]:
            continue
        options = tuple(ast.literal_eval(row["options"]))
        question = (row["question"], options, row["source"])
        if len(options) < 2 or question in seen:
            continue
        seen.add(question)
        text = row["selections"].removeprefix("defaultdict(<class 'list'>, ").removesuffix(")")
        for country, shares in ast.literal_eval(re.sub(r"\bnan\b", "1e999", text)).items():
            total = sum(shares)
            if len(shares) == len(options) and math.isfinite(total) and total > 0:
                found[*question, country] = [share / total for share in shares]
    return found


def _text(option: str | float) -> str:
    if isinstance(option, str):
        return option
    return str(int(option)) if option == int(option) else repr(option)


if __name__ == "__main__":
    main()
