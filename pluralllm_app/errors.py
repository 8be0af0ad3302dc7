"""The errors a user can mend: each message names the thing and the remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user gave is wrong; the command prints it without a traceback and exits 1."""


class SurveyError(UserError):
    """A survey, its source, or one of its files is missing, malformed or unfit for the run."""


class ColumnError(SurveyError):
    """A table lacks a column.

    Args:
        text: which.
        names: of the columns that it has.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        super().__init__(text)
        self.names = list(names)


class TooSmallError(SurveyError):
    """A survey has too few groups or answers for what is asked of it.

    Args:
        text: what is missing.
        remedy: words to add to the command, with which it works for this survey.
    """

    def __init__(self, text: str, remedy: Sequence[str]) -> None:
        super().__init__(text)
        self.remedy = list(remedy)


class PredictorError(UserError):
    """A saved predictor is missing, damaged, or of another kind or shape than it says."""


class AnswersError(UserError):
    """A question or an answer that a predictor is given is malformed, or unknown to it."""


class SettingsError(UserError):
    """A run setting is unknown, of the wrong type, out of range, or at odds with another."""


class FederationError(UserError):
    """The federation cannot start or go on: roster mismatch, lost quorum, diverged weights."""


REFUSED = "refused by the node: "


class RefusedError(FederationError):
    """A node does not do what a server asks, as its owner wants it or since a key is odd.

    Its text begins with REFUSED, by which the node's audit log tells it from other errors.

    Args:
        why: in words that may reach the server.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{REFUSED}{why}")


class MissingPartError(UserError):
    """What is asked for needs an optional part of the installation, an extra of pyproject.toml.

    Args:
        part: the extra.
        text: what is missing, for what, and how to install it.
    """

    def __init__(self, part: str, text: str) -> None:
        super().__init__(text)
        self.part = part


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Note on a SurveyError of the block which directory it is about.

    The command prints notes; the server is told of a node's error without them.
    """
    try:
        yield
    except SurveyError as error:
        error.add_note(f"The directory is {path}.")
        raise
