"""A site: what one group's machine needs of a survey, without any other group's answers.

    survey.json (of this group alone), questions.parquet, embeddings.safetensors,
    groups/<slug>.parquet of this group
    site.json     the group, and the size and sha256 of each of these files

`pluralllm site create` writes a site, from a questionnaire and a file of the group's answers or out
of a prepared survey, to the same bytes where the answers are the same. The node on the group's
machine is given its directory. A node opens a site only if every file is as it was written. Whether
questions and embeddings match the fingerprint in survey.json is checked when the site is written:
the checksums cover all three files, so a node needs to hash them only once.

Error messages name files without their directory, because a node's errors reach the server.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pluralllm_app.core.json_text import load_json
from pluralllm_app.core.names import file_slugs
from pluralllm_app.errors import SurveyError, located
from pluralllm_app.survey.content import Answers, Description
from pluralllm_app.survey.info import Group, SurveyInfo, check_version
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import INFO, SHARED, shared_copy
from pluralllm_app.survey.storage import group_tables

MANIFEST = "site.json"
FORMAT_VERSION = 1
_REMEDY = "copy it again from where `pluralllm site create` wrote it"


@dataclass(frozen=True)
class Site:
    """An opened and checked site."""

    survey: PreparedSurvey
    group: str

    @classmethod
    def open(cls, path: str | Path, group: str | None = None) -> "Site":
        """Open the site in the directory `path`, and read every file to check it.

        Args:
            group: the group that it must belong to; None for any group.

        Raises:
            SurveyError: there is no site, a file is missing, changed or does not belong there, the
                survey has another format version, or the site belongs to another group.
        """
        path = Path(path).resolve()
        with located(path):
            manifest = _read_manifest(path)
            files = manifest["files"]
            for name, entry in files.items():
                _check(path, name, entry)
            found = {f"groups/{file.name}" for file in (path / "groups").glob("*")}
            for stray in sorted(found - set(files)):
                raise SurveyError(
                    f"the site has {stray}, which is not in its {MANIFEST}: a site holds the "
                    "answers of one group alone, so remove it"
                )
            if group not in (None, manifest["group"]):
                raise SurveyError(
                    f"the node is of group {group!r}, its site of group {manifest['group']!r}: "
                    "give the node its own group's site"
                )
        survey = PreparedSurvey.open(path)
        with located(path):
            held = survey.group(manifest["group"])
            if set(files) != {*SHARED, held.file}:
                raise SurveyError(f"{MANIFEST} does not list the files of a site: {_REMEDY}")
        survey.preferences(held.name)
        return cls(survey, held.name)


def write_site(survey: PreparedSurvey, group: str, out: Path) -> Site:
    """Cut the site of one group out of a survey, into the new directory `out`, and open it.

    Raises:
        SurveyError: there is no such group, the survey is not as it was prepared, or `out` exists
            already or cannot be written.
    """
    own = survey.group(group)
    with _new_site(survey, own, out) as (answers, path):
        shutil.copyfile(survey.path / own.file, answers)
    return Site.open(path)


def make_site(
    questionnaire: PreparedSurvey,
    group: str,
    role: str,
    answers: Answers,
    description: Description | None,
    out: Path,
) -> Site:
    """Write the site of a group from its answers, into the new directory `out`, and open it.

    Args:
        questionnaire: or a survey, of which only what all groups share is used.
        group: its name.
        role: one of ROLES.
        answers: of this group alone, by the numbers of the questionnaire's questions.
        description: says who the group is.
        out: the directory.

    Raises:
        SurveyError: the questionnaire is not as it was prepared, the group answers no question, or
            `out` exists already or cannot be written.
    """
    if not len(answers):
        raise SurveyError(f"group {group!r} answers no question of {questionnaire.name}")
    described = {} if description is None else {group: description}
    ((_, table),) = group_tables(questionnaire.questions(), answers, described)
    own = Group(group, role, len(answers), "")
    with _new_site(questionnaire, own, out) as (file, path):
        pq.write_table(table, file)
    return Site.open(path)


@contextmanager
def _new_site(survey: PreparedSurvey, own: Group, out: Path) -> Iterator[tuple[Path, Path]]:
    """Make a site once the block has written the group's answers to the file that it is given."""
    file = f"groups/{file_slugs([own.name])[own.name]}.parquet"
    with shared_copy(survey, out, "site", mode=0o700) as (fresh, path):  # for its owner alone
        (fresh / "groups").mkdir()
        yield fresh / file, path
        info = SurveyInfo.read(fresh / INFO)
        replace(info, groups=(replace(own, file=file),)).write(fresh / INFO)
        entries = {name: _describe(fresh / name) for name in (*SHARED, file)}
        content = {"format_version": FORMAT_VERSION, "group": own.name, "files": entries}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (fresh / MANIFEST).write_text(text, encoding="utf-8")


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise SurveyError(
            f"{path.name} is no site, it has no {MANIFEST}: make one with `pluralllm site create`"
        )
    try:
        manifest = load_json(file)
        version, group, files = (manifest[key] for key in ("format_version", "group", "files"))
        known = isinstance(group, str) and all(
            isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)
            for entry in files.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SurveyError(f"{MANIFEST} is damaged: {_REMEDY}") from error
    again = "write it again with `pluralllm site create`"
    check_version(MANIFEST, version, FORMAT_VERSION, again)
    if not known or any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise SurveyError(f"{MANIFEST} is damaged: {_REMEDY}")
    return {"group": group, "files": files}


def _check(path: Path, name: str, entry: dict[str, Any]) -> None:
    file = path / name
    try:
        if not file.is_file():
            raise SurveyError(f"{name} is missing: {_REMEDY}")
        same = file.stat().st_size == entry["bytes"] and _describe(file) == entry
    except OSError as error:
        kind = type(error).__name__
        raise SurveyError(f"{name} cannot be read ({kind}): give it to the node's user") from error
    if not same:
        raise SurveyError(f"{name} is not as it was written: {_REMEDY}")
