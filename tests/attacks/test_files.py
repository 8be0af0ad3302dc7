"""Files that somebody gives to a member or to the server, opened by the commands themselves."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.saved import save_predictor
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.attacks.conftest import Row
from tests.conftest import ROOT

pytestmark = pytest.mark.attack

LIMIT = 300.0  # seconds
VALUES = 50_000_000
LOAD = "from pluralllm_app import load_predictor; load_predictor({!r})"


COMMAND = """
import atexit, pathlib, runpy, sys
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(status.read_text()))
runpy.run_module("pluralllm_app", run_name="__main__")
"""


def run(code: str, *arguments: object) -> tuple[int, str, float]:
    """Run Python code; returns exit status, what it printed, and seconds."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, time.monotonic() - start


def check(site: Path) -> tuple[int, str, float, float]:
    """Check a site; what `run` returns, and the MiB of memory that it had at most."""
    status, said, seconds = run(COMMAND, "site", "check", site)
    found = re.search(r"VmHWM:\s+(\d+) kB", said)
    assert found, said
    return status, said, seconds, int(found[1]) / 1024


def test_a_survey_that_unpacks_to_gigabytes(
    tiny_survey: PreparedSurvey, tmp_path: Path, row: Row
) -> None:
    site = write_site(tiny_survey, "Alder", tmp_path / "site").survey.path
    status, said, seconds, memory = check(site)
    assert status == 0, said
    file = tiny_survey.path / tiny_survey.group("Alder").file
    table = pq.read_table(file)
    count = len(table)
    offsets = pa.array([0, VALUES, *[VALUES] * (count - 1)], pa.int32())
    bomb = pa.ListArray.from_arrays(offsets, np.zeros(VALUES))
    own = site / "groups" / file.name
    for name in ("note", "shares"):
        changed = (
            table.append_column(name, bomb)
            if name == "note"
            else table.set_column(table.column_names.index(name), name, bomb)
        )
        pq.write_table(changed, own)
        size = own.stat().st_size
        again = write_manifest(site)
        done, told, longer, more = check(again)
        assert done == (0 if name == "note" else 1), told
        assert "Traceback" not in told
        assert more - memory < 64
        row(
            f"a {size / 1024:.0f} KiB Parquet file in a site, of 400 MB in "
            + ("a column of its own" if name == "note" else "the shares"),
            before="3.5 GB and 23 s, and called as it was written",
            after=("read without it" if name == "note" else "refused, told by how many values")
            + f", {max(more - memory, 0):.0f} MiB and {max(longer - seconds, 0):.1f} s more "
            "than as it was",
        )


def write_manifest(site: Path) -> Path:
    """Let site.json fit the site's files, as who makes such a site would."""
    from pluralllm_app.survey.site import MANIFEST, _describe

    manifest = json.loads((site / MANIFEST).read_text("utf-8"))
    manifest["files"] = {name: _describe(site / name) for name in manifest["files"]}
    (site / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    return site


def test_a_predictor_of_a_million_layers(tmp_path: Path, row: Row) -> None:
    save_predictor(GPOPredictor(GPO(3, d_model=8, num_layers=1)), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_layers": 10**6}))
    status, said, seconds = run(LOAD.format(str(tmp_path)))
    assert status == 1
    assert "arrays for num_layers = 1000000" in said
    row(
        "a config.json with 10^6 layers",
        before="minutes, until it was killed",
        after=f"refused, {seconds:.1f} s with the start of Python",
    )


def test_weights_that_are_no_numbers(tmp_path: Path, row: Row) -> None:
    save_predictor(GPOPredictor(GPO(3, d_model=8, num_layers=1)), tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    arrays["predictor.0.bias"][0] = np.nan
    save_file(arrays, tmp_path / "model.safetensors")
    status, said, _ = run(LOAD.format(str(tmp_path)))
    assert status == 1
    assert "is not all finite" in said
    row("a predictor whose weights are NaN", before="loaded in silence", after="refused by name")


def test_names_that_drive_a_terminal(tmp_path: Path, row: Row) -> None:
    file = tmp_path / "mine.csv"
    lines = ["question_id,question,option,group,share"]
    lines += [f"1,Q?,{option},\x1b]0;root\x07North,0.5" for option in ("Yes", "No")]
    file.write_text("\n".join(lines))
    made = tmp_path / "made"
    status, said, _ = run(COMMAND, "prepare", "table", "--file", file, "--out", made)
    assert status == 1
    assert "\x1b]" not in said
    assert "has the control character U+001B" in said
    row(
        "ESC and OSC in the name of a group",
        before="written to the terminal and to logs as they are",
        after="refused by prepare; shown as \\x1b wherever a text is printed",
    )
