"""The ledger of what is not in the shares of a group, by question and reason.

It counts people of the group, so it stays on the group's machine: beside the site, not in it.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pluralllm_app.errors import SurveyError


@dataclass(frozen=True)
class LeftOut:
    """People whose answer is not in the shares."""

    question: str  # its id, "" for all questions
    reason: str
    people: int


def by_reason(left_out: Sequence[LeftOut]) -> dict[str, list[LeftOut]]:
    """Return the entries of each reason."""
    found: dict[str, list[LeftOut]] = {}
    for own in left_out:
        found.setdefault(own.reason, []).append(own)
    return found


def ledger_of(site: Path) -> Path:
    """Return where the ledger of a site is written.

    Raises:
        SurveyError: something is there.
    """
    site = site.expanduser().resolve()
    file = site.with_name(f"{site.name}.left-out.csv")
    if file.exists():
        raise SurveyError(f"{file} is there already, from another site: move it, or rename --out")
    return file


def write_ledger(left_out: Sequence[LeftOut], file: Path) -> None:
    """Write the ledger as a table with the columns question_id, reason and people.

    Raises:
        SurveyError: it cannot be written.
    """
    try:
        file.touch(0o600)
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["question_id", "reason", "people"])
            writer.writerows([own.question, own.reason, own.people] for own in left_out)
    except OSError as error:
        raise SurveyError(f"cannot write {file}: {error.strerror}") from error
