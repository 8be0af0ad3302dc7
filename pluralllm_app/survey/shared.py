"""What all groups of a survey share, in memory and beside a saved predictor.

    questionnaire.json        questions, options, ordinal values; the survey's name, embedder, ...
    embeddings.safetensors    `embeddings` float16 [rows, dim], one row for each option

No group's name or answers are in it. A predictor that lies beside it can be used by the questions'
texts. Unlike a prepared survey, it is read without pyarrow.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pluralllm_app.core.segments import Halves, segment_starts
from pluralllm_app.errors import SurveyError
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.info import METRICS, ORDINAL_METRICS, check_version

FORMAT_VERSION = 1
TEXTS, VECTORS = "questionnaire.json", "embeddings.safetensors"
_AGAIN = "copy the predictor's directory again"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a questionnaire says of itself."""

    survey: str  # its name
    metric: str  # of alignment, one of METRICS
    embedder: str  # see `SurveyInfo`
    template: str | None
    source: str
    licence: str
    synthetic: bool
    fingerprint: str  # sha256 of questions and embeddings, in hexadecimal


@dataclass(frozen=True, eq=False)
class Questionnaire:
    """The questions of a survey, with the embeddings of their options."""

    about: About
    questions: Questions
    embeddings: Halves  # [rows, dim]

    @cached_property
    def question_set(self) -> QuestionSet:
        """All questions as predictors see them."""
        values = None
        if self.about.metric in ORDINAL_METRICS:
            flat = [value for each in self.questions.values for value in each or ()]
            values = np.array(flat, np.float32)
        counts = self.questions.counts
        return QuestionSet(
            embeddings=self.embeddings,
            questions=np.arange(len(counts)),
            first_rows=segment_starts(counts),
            options=counts,
            values=values,
        )

    def save(self, directory: Path) -> None:
        """Write both files; raises OSError where they cannot be written."""
        content = {
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "questions": self.questions,
        }
        (directory / TEXTS).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
        vectors = np.ascontiguousarray(self.embeddings)
        (directory / VECTORS).write_bytes(save({"embeddings": vectors}))

    @classmethod
    def load(cls, texts: Path, vectors: Path) -> "Questionnaire":
        """Read and check the two files.

        Raises:
            SurveyError: one is missing, damaged, of another format, or not the other's.
        """
        for file in (texts, vectors):
            if not file.exists():
                raise SurveyError(f"{file} is missing: {_AGAIN}")
        try:
            content = texts.read_bytes()
            version = msgspec.json.decode(content, type=_Version).format_version
            check_version(texts, version, FORMAT_VERSION, _AGAIN)
            read = msgspec.json.decode(content, type=_Content)
            embeddings = load_file(vectors)["embeddings"]
        except (
            *(OSError, SafetensorError, KeyError),
            *(msgspec.MsgspecError, RecursionError),
        ) as error:
            raise SurveyError(
                f"{texts} or {vectors.name} is damaged ({error}): {_AGAIN}"
            ) from error
        read.questions.check()
        if read.about.metric not in METRICS:
            raise SurveyError(f"{texts} has the unknown metric {read.about.metric!r}: {_AGAIN}")
        rows = int(read.questions.counts.sum())
        if embeddings.dtype != np.float16 or embeddings.ndim != 2 or len(embeddings) != rows:
            raise SurveyError(
                f"{vectors} holds {embeddings.dtype} {list(embeddings.shape)}, not float16 "
                f"[{rows}, dim]: {_AGAIN}"
            )
        if not np.isfinite(embeddings).all():
            raise SurveyError(f"{vectors} holds numbers that are not finite: {_AGAIN}")
        if fingerprint(read.questions, embeddings) != read.about.fingerprint:
            raise SurveyError(f"{texts} and {vectors.name} are not as they were written: {_AGAIN}")
        return cls(read.about, read.questions, embeddings)


@dataclass(frozen=True)
class _Version:
    format_version: int


@dataclass(frozen=True)
class _Content:
    about: About
    questions: Questions


def fingerprint(questions: Questions, embeddings: Halves) -> str:
    """The sha256 of questions and embeddings, in hexadecimal."""
    content = [questions.ids, questions.texts, questions.options, questions.values]
    digest = hashlib.sha256(json.dumps(content).encode())
    digest.update(json.dumps(list(embeddings.shape)).encode())
    digest.update(np.ascontiguousarray(embeddings).data)
    return digest.hexdigest()
