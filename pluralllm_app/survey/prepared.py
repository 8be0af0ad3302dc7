"""The prepared survey: a directory that holds a survey as every run reads it.

    survey.json              what it is, and its groups
    questions.parquet        question_id, text, options, values (ordinal, or null), first_row
    embeddings.safetensors   `embeddings` float16 [rows, dim], one row per option
    groups/<slug>.parquet    question_id, shares, respondents (or null): one file per group; in its
                             metadata the group's description and its embedding, where it has one

A site needs everything but the other groups' files. Client processes import this module, so it
stays clear of pandas and transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from pluralllm_app.core.atomic import beside, try_directory, usual_rights, whole_directory
from pluralllm_app.core.names import file_slugs
from pluralllm_app.core.segments import Floats, Halves, Ints, segment_rows
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError, located
from pluralllm_app.preferences import PreferenceSet, QuestionSet
from pluralllm_app.survey import storage
from pluralllm_app.survey.content import Answers, Description, Influence, Questions
from pluralllm_app.survey.info import (
    FORMAT_VERSION,
    METRICS,
    ORDINAL_METRICS,
    PREPARE_AGAIN,
    ROLES,
    Group,
    SurveyInfo,
    check_place,
)
from pluralllm_app.survey.parquet_files import numbers
from pluralllm_app.survey.shared import About, Questionnaire, fingerprint

__all__ = ["FORMAT_VERSION", "Group", "PreparedSurvey", "check_output", "write_survey"]

_ENTRIES = {"survey.json", "questions.parquet", "embeddings.safetensors", "groups"}


@dataclass(frozen=True, eq=False)
class PreparedSurvey(SurveyInfo):
    """An opened survey: the questions and embeddings of all, the answers of a group on demand.

    >>> survey = PreparedSurvey.open("data/demo")
    >>> survey.preferences(survey.groups[0].name).shares
    """

    path: Path
    embeddings: Halves  # [rows, dim] float16, mapped from the file
    table: pa.Table  # questions.parquet

    @classmethod
    def open(cls, path: str | Path) -> "PreparedSurvey":
        """Open the survey at `path`; no group's file is read, and none needs to be there.

        Raises:
            SurveyError: nothing there, another format version, or a damaged or inconsistent file.
        """
        path = Path(path).resolve()
        check_place(path)
        with located(path):
            info = SurveyInfo.read(path / "survey.json")
            embeddings = storage.map_embeddings(path / "embeddings.safetensors", info.dim)
            table = storage.read_questions(path / "questions.parquet", len(embeddings), info.metric)
        return cls(**vars(info), path=path, embeddings=embeddings, table=table)

    def verify(self) -> None:
        """Check questions and embeddings against the fingerprint, reading all of them.

        Raises:
            SurveyError: they are not those the survey was prepared with, or not finite.
        """
        if fingerprint(self.questions(), self.embeddings) != self.fingerprint:
            raise SurveyError(
                f"survey {self.path} is not as it was prepared: its questions or embeddings differ "
                f"from the fingerprint in survey.json: {PREPARE_AGAIN}"
            )
        with located(self.path):
            storage.check_finite(self.path / "embeddings.safetensors", self.embeddings)

    def equals(self, other: "PreparedSurvey") -> bool:
        """Whether both say the same of themselves and have the same answers."""
        return all(
            getattr(self, field.name) == getattr(other, field.name) for field in fields(SurveyInfo)
        ) and all(
            np.array_equal(getattr(ours, name), getattr(theirs, name))
            for ours, theirs in (
                (self.preferences(group.name), other.preferences(group.name))
                for group in self.groups
            )
            for name in ("questions", "shares")
        )

    def questions(self) -> Questions:
        """Return ids, texts, options and ordinal values of all questions, e.g. for a report."""
        columns = self.table.to_pydict()
        return Questions(
            columns["question_id"], columns["text"], columns["options"], columns["values"]
        )

    def questionnaire(self) -> Questionnaire:
        """Return what all groups share."""
        about = About(
            survey=self.name,
            metric=self.metric,
            embedder=self.embedder,
            template=self.template,
            source=self.source,
            licence=self.licence,
            synthetic=self.synthetic,
            fingerprint=self.fingerprint,
        )
        return Questionnaire(about, self.questions(), self.embeddings)

    def all_questions(self) -> QuestionSet:
        """Every question of the survey, with the embeddings of its options."""
        return self.questionnaire().question_set

    def group(self, name: str) -> Group:
        """Return the group called `name`.

        Raises:
            SurveyError: the survey has no such group; the message has the nearest names.
        """
        if name not in self._by_name:
            known = did_you_mean(name, list(self._by_name))
            raise SurveyError(f"survey {self.path.name} has no group {name!r}: {known}")
        return self._by_name[name]

    def preferences(self, name: str) -> PreferenceSet:
        """Read and check the answers of the group called `name`, and of no other group.

        Shares are rescaled to sum to 1 per question; questions come in the survey's order. Ordinal
        values are set where the metric needs them.

        Raises:
            SurveyError: unknown group, or its file is missing, damaged or inconsistent.
        """
        own = self._answers(name)
        first_rows, counts = self._first_rows[own.questions], self._counts[own.questions]
        values = self._values
        return PreferenceSet(
            group=name,
            embeddings=self.embeddings,
            questions=own.questions,
            first_rows=first_rows,
            options=counts,
            shares=own.shares,
            respondents=own.respondents,
            description=None if own.description is None else own.description.embedding,
            values=None if values is None else values[segment_rows(first_rows, counts)],
        )

    def influence(self, name: str) -> Influence | None:
        """How much one respondent can change of `preferences(name)`; None where it is not known."""
        return self._answers(name).influence

    def _answers(self, name: str) -> storage.GroupAnswers:
        group = self.group(name)
        with located(self.path):
            return storage.read_answers(
                self.path / group.file, group.questions, self._ids, self._counts, self.dim
            )

    def description(self, name: str) -> str | None:
        """Return the text that says who the group called `name` is, None where there is none.

        Raises:
            SurveyError: unknown group, or its file is missing or damaged.
        """
        group = self.group(name)
        with located(self.path):
            found = storage.read_description(self.path / group.file, self.dim)
        return None if found is None else found.text

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    @cached_property
    def _ids(self) -> pa.Array:
        return self.table["question_id"].combine_chunks()

    @cached_property
    def _counts(self) -> Ints:
        counts: Ints = numbers(pc.list_value_length(self.table["options"])).astype(np.int64)
        return counts

    @cached_property
    def _first_rows(self) -> Ints:
        first_rows: Ints = numbers(self.table["first_row"])
        return first_rows

    @cached_property
    def _values(self) -> Floats | None:
        """[rows] ordinal value of each option, where the metric needs them."""
        if self.metric not in ORDINAL_METRICS:
            return None
        values: Floats = numbers(pc.list_flatten(self.table["values"])).astype(np.float32)
        return values


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Raise SurveyError unless a survey can be written to `path`; call it before hours of work.

    Only a prepared survey is ever overwritten, and only one that holds no other files.
    """
    try:
        path = Path(path).resolve()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, or links in a circle
        reason = getattr(error, "strerror", None) or error
        raise SurveyError(f"{path} cannot be a directory ({reason}): choose another one") from error
    if there:
        if not path.is_dir():
            raise SurveyError(f"{path} is a file: choose another output directory")
        entries = {entry.name for entry in path.iterdir()}
        if entries - _ENTRIES or (entries and "survey.json" not in entries):
            raise SurveyError(
                f"{path} holds other files than a prepared survey: choose another output directory"
            )
        if entries and not overwrite:
            raise SurveyError(f"{path} already holds a survey: pass --overwrite to replace it")
    try:
        try_directory(beside(path, "new"))
    except OSError as error:
        raise SurveyError(f"cannot write to {path.parent} ({error.strerror})") from error


def write_survey(
    path: str | Path,
    *,
    name: str,
    metric: str,
    embedder: str,
    template: str | None = None,
    source: str,
    licence: str,
    questions: Questions,
    embeddings: Halves,
    answers: Answers,
    roles: Mapping[str, str],
    descriptions: Mapping[str, Description] | None = None,
    synthetic: bool = False,
    overwrite: bool = False,
) -> PreparedSurvey:
    """Write a survey to the directory `path` and open it; `path` appears whole or not at all.

    Args:
        embeddings: [rows, dim] float16, one row per option in the order of `questions`.
        answers: of every group in `roles`; those of other groups are left out.
        roles: "train" or "evaluation" for each group's name.
        descriptions: of the groups that have one, by name; they are not part of the fingerprint.
        synthetic: whether the answers are made up; the survey's name, which is all that most
            places show, then says so as well.

    Raises:
        SurveyError: `path` cannot be written, or the content breaks a rule of the format.
    """
    path = Path(path).resolve()
    check_output(path, overwrite)
    check_questions(metric, questions, embeddings)
    _check_groups(answers, roles)
    groups = _describe_groups(answers, roles)
    info = SurveyInfo(
        name=f"{name} (synthetic)" if synthetic else name,
        metric=metric,
        embedder=embedder,
        template=template,
        dim=embeddings.shape[1],
        source=source,
        licence=licence,
        synthetic=synthetic,
        fingerprint=fingerprint(questions, embeddings),
        groups=groups,
    )
    try:
        with whole_directory(path) as fresh:
            (fresh / "groups").mkdir()
            write_shared(fresh, questions, embeddings)
            file_of = {group.name: fresh / group.file for group in groups}
            for group_name, table in storage.group_tables(questions, answers, descriptions or {}):
                if group_name in file_of:
                    pq.write_table(table, file_of[group_name])
            info.write(fresh / "survey.json")
            PreparedSurvey.open(fresh)
    except OSError as error:
        raise SurveyError(f"cannot write {path} ({error})") from error
    return PreparedSurvey.open(path)


def write_shared(directory: Path, questions: Questions, embeddings: Halves) -> None:
    """Write the tables that all groups share into a directory."""
    pq.write_table(storage.questions_table(questions), directory / "questions.parquet")
    file = directory / "embeddings.safetensors"
    with usual_rights(file):
        save_file({"embeddings": np.ascontiguousarray(embeddings)}, file)


def check_questions(metric: str, questions: Questions, embeddings: Halves) -> None:
    """Raise SurveyError unless questions and embeddings keep the rules of the format."""
    if metric not in METRICS:
        raise SurveyError(f"unknown metric {metric!r}: {did_you_mean(metric, METRICS)}")
    questions.check()
    rows = int(questions.counts.sum())
    if embeddings.dtype != np.float16 or embeddings.ndim != 2 or len(embeddings) != rows:
        raise SurveyError(
            f"embeddings are {embeddings.dtype} {list(embeddings.shape)}, "
            f"expected float16 [{rows}, dim]"
        )
    if not np.isfinite(embeddings).all():
        raise SurveyError("embeddings are not all finite in float16: choose another embedder")


def _check_groups(answers: Answers, roles: Mapping[str, str]) -> None:
    counts = answers.counts()
    for name, role in roles.items():
        if role not in ROLES:
            raise SurveyError(f"group {name!r} has role {role!r}, known are {', '.join(ROLES)}")
        if not name.strip() or counts.get(name, 0) == 0:
            raise SurveyError(f"group {name!r} answers no question: leave it out")
    if not roles:
        raise SurveyError("no group is chosen: name at least one")


def _describe_groups(answers: Answers, roles: Mapping[str, str]) -> tuple[Group, ...]:
    counts = answers.counts()
    slugs = file_slugs(roles)
    return tuple(
        Group(name, roles[name], counts[name], f"groups/{slugs[name]}.parquet")
        for name in sorted(roles)
    )
