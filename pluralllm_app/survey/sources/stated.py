"""What a user states about a file because the file does not say it."""

from dataclasses import dataclass, fields
from pathlib import Path

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError

DECIMALS = {"point": ".", "comma": ","}


@dataclass(frozen=True)
class Stated:
    """Each is an option of `pluralllm prepare` with the same name; None: not stated."""

    encoding: str | None = None  # of text, as Python calls it
    decimal: str | None = None  # one of DECIMALS
    source: str | None = None  # whom the answers are from
    licence: str | None = None
    map: Path | None = None  # of a file with one row per person: what its codes say
    weight: str | None = None  # and which of its columns weighs people, or "none"
    by: str | None = None  # and which tell the groups apart, separated by commas
    min_respondents: int | None = None  # fewer of them give no answer

    @property
    def sign(self) -> str | None:
        """The decimal sign."""
        return None if self.decimal is None else DECIMALS[self.decimal]

    def check(self, source: str, known: tuple[str, ...]) -> None:
        """Raise SurveyError unless all that is stated is among `known`, and has a known value."""
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in known:
                option = field.name.replace("_", "-")
                raise SurveyError(f"source {source!r} takes no --{option}: leave it out")
        if self.decimal is not None and self.decimal not in DECIMALS:
            raise SurveyError(
                f"unknown decimal sign {self.decimal!r}: {did_you_mean(self.decimal, DECIMALS)}"
            )
