"""survey.json: what a prepared survey is, and which groups it has.

Error messages name the file without its directory, because a node's errors reach the server.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.json_text import load_json
from pluralllm_app.errors import SurveyError

FORMAT_VERSION = 1
ROLES = ("train", "evaluation")
METRICS = ("jensen-shannon", "wasserstein")  # of alignment, see `scoring.metrics`
ORDINAL_METRICS = ("wasserstein",)  # those that need ordinal values of the options
MOST_DIM = 2**16  # of embeddings
PREPARE_AGAIN = "run `pluralllm prepare` again"
_GROUP_FILE = re.compile(r"groups/[a-z0-9-]+\.parquet")


@dataclass(frozen=True)
class Group:
    """One group of a survey, without its answers."""

    name: str
    role: str  # "train" or "evaluation"
    questions: int  # the number that it answers
    file: str  # relative to the survey, e.g. "groups/egypt.parquet"


@dataclass(frozen=True, eq=False)  # two surveys with the same information are still two surveys
class SurveyInfo:
    """The content of survey.json."""

    name: str
    metric: str  # one of METRICS
    embedder: str  # see `embedders.names`
    template: str | None  # the prompt template of a transformers model
    dim: int  # of the embeddings
    source: str
    licence: str
    synthetic: bool
    fingerprint: str  # sha256 of questions and embeddings, in hexadecimal
    groups: tuple[Group, ...]  # sorted by name, names unique

    def write(self, file: Path) -> None:
        """Write survey.json."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "SurveyInfo":
        """Read and check survey.json.

        Raises:
            SurveyError: the file is missing, is not JSON, has another format version, or an entry
                is wrong.
        """
        content = _load(file)

        def entry(mapping: Any, key: str, kind: type | tuple[type, ...]) -> Any:
            if not isinstance(mapping, dict) or not isinstance(mapping.get(key), kind):
                raise SurveyError(f"{file.name} has no valid {key!r}: {PREPARE_AGAIN}")
            return mapping[key]

        def text(mapping: Any, key: str) -> str:
            value: str = entry(mapping, key, str)
            if found := hidden(value):
                raise SurveyError(f"{file.name} has the hidden character {found} in its {key!r}")
            return value

        def one_of(mapping: Any, key: str, known: tuple[str, ...]) -> str:
            value: str = entry(mapping, key, str)
            if value not in known:
                raise SurveyError(f"{file.name} has {key} {value!r}, known are {', '.join(known)}")
            return value

        def dim(content: Any) -> int:
            value: int = entry(content, "dim", int)
            if not 1 <= value <= MOST_DIM:
                raise SurveyError(f"{file.name} has no valid 'dim': {PREPARE_AGAIN}")
            return value

        def group(item: Any) -> Group:
            path = entry(item, "file", str)
            # A path out of survey.json must not lead out of the survey.
            if not _GROUP_FILE.fullmatch(path):
                raise SurveyError(f"{file.name} names the odd group file {path!r}: {PREPARE_AGAIN}")
            role = one_of(item, "role", ROLES)
            return Group(text(item, "name"), role, entry(item, "questions", int), path)

        groups = sorted(map(group, entry(content, "groups", list)), key=lambda group: group.name)
        for what in ("name", "file"):
            if len({getattr(group, what) for group in groups}) < len(groups):
                raise SurveyError(f"{file.name} has two groups with one {what}: {PREPARE_AGAIN}")
        return cls(
            name=text(content, "name"),
            metric=one_of(content, "metric", METRICS),
            embedder=_without_path(text(content, "embedder")),
            template=entry(content, "template", (str, type(None))),
            dim=dim(content),
            source=text(content, "source"),
            licence=text(content, "licence"),
            synthetic=entry(content, "synthetic", bool),
            fingerprint=entry(content, "fingerprint", str),
            groups=tuple(groups),
        )


def _load(file: Path) -> Any:
    try:
        content = load_json(file)
    except FileNotFoundError:
        raise SurveyError(
            f"{file.parent.name} is not a prepared survey, it has no survey.json: "
            "make one with `pluralllm prepare`, or a questionnaire with `pluralllm questionnaire`"
        ) from None
    except (OSError, ValueError) as error:
        fault = f"cannot be read ({type(error).__name__})"
        raise SurveyError(f"{file.name} {fault}: {PREPARE_AGAIN}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    check_version(file.name, version, FORMAT_VERSION, PREPARE_AGAIN)
    return content


def _without_path(embedder: str) -> str:
    """Version 0.1.0 named a local model by its path, which is no other machine's business."""
    return "a local model" if embedder.startswith(("/", ".", "~")) else embedder


def check_place(path: Path) -> None:
    """Raise SurveyError where there is no directory that could be a survey."""
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise SurveyError(
            f"survey {path} {what}: make one with `pluralllm prepare`, or a questionnaire with "
            "`pluralllm questionnaire`"
        )


def check_version(file: object, version: object, known: int, older: str) -> None:
    """Raise SurveyError where a file's version is not `known`; `older`: the remedy for an older."""
    if version != known:
        newer = isinstance(version, int) and version > known
        raise SurveyError(
            f"{file} has format version {version!r}, this app reads {known}: "
            + ("install a newer pluralllm_app" if newer else older)
        )
