"""From a table that a German spreadsheet exports to a report, by the README's commands alone.

The machine is behind a proxy that is dead. No command may fail.
"""

import json
import os
import random
from pathlib import Path

import pytest

from tests.support.command import TINY_RUN, overrides, pluralllm
from tests.support.deployment import DEAD_PROXIES

GROUPS = ("Köln", "Zürich", "Thüringen", "Österreich")
OPTIONS = ("sehr dafür", "eher dafür", "überhaupt nicht dafür")


def export() -> str:
    """Percentages with decimal commas and signs, in columns separated by semicolons."""
    rng = random.Random(3)
    lines = ["Nr;question_id;question;group;option;share"]
    for number in range(40):
        for group in GROUPS:
            first = rng.randint(1, 499) / 10
            second = rng.randint(1, 499) / 10
            shares = (first, second, 100 - first - second)
            lines += [
                f"{number};F{number};Soll Straße {number} gesperrt werden?;{group};{option};"
                f"{share:.1f} %".replace(".", ",")
                for option, share in zip(OPTIONS, shares, strict=True)
            ]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.story
def test_from_an_exported_table_to_a_report_behind_a_dead_proxy(tmp_path: Path) -> None:
    environment = os.environ | DEAD_PROXIES | {"HOME": str(tmp_path), "COLUMNS": "250"}

    def command(*arguments: str) -> str:
        done = pluralllm(*arguments, cwd=tmp_path, env=environment)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    names = ["--train", "Köln", "--train", "Zürich", "--evaluation", "Österreich"]
    prints = set()
    for encoding in ("cp1252", "utf-8-sig", "utf-16"):
        (tmp_path / "mine.csv").write_bytes(export().encode(encoding))
        said = command(
            *("prepare", "table", "--file", "mine.csv", "--out", "data/mine", "--overwrite"), *names
        )
        assert "semicolons; decimal commas; percentages" in said
        assert ("Windows-1252" in said) == (encoding == "cp1252")
        survey = json.loads((tmp_path / "data" / "mine" / "survey.json").read_text())
        prints.add(survey["fingerprint"])
    assert len(prints) == 1
    settings = ["-c", overrides(TINY_RUN)]
    said = command("run", "--survey", "data/mine", "--out", "runs/mine", *settings)
    assert "Österreich" in said
    methods = ["--method", "federated", "--method", "consensus"]
    said = command("compare", "--survey", "data/mine", "--seeds", "2", *methods, *settings)
    assert "Federated GPO" in said
    assert "report.html" in command("report", "runs/compare-mine")
    assert "Österreich" in (tmp_path / "report.html").read_text("utf-8")
