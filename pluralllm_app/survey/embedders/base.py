"""What an embedder is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from pluralllm_app.core.segments import Floats, Halves
from pluralllm_app.survey.content import Questions


class Embedder(Protocol):
    """Turns each option of each question into a vector, the same one in every process."""

    @property
    def name(self) -> str:
        """What survey.json calls it, see `names`: the same on every machine, and never a path."""

    @property
    def template(self) -> str | None:
        """The name of the prompt template, or None if the embedder uses none."""

    def embed(self, questions: Questions, console: Console, unfinished: Path) -> Halves:
        """Embed all options.

        Args:
            questions: the questions with their options.
            console: where to show progress.
            unfinished: a directory in which an embedder that takes long keeps its finished rows, so
                that a later call can continue; the caller removes it.

        Returns:
            float16 [rows, dim], one row for each option, in the order of `questions`.
        """

    def describe(self, texts: Sequence[str]) -> Floats:
        """Embed texts that say who a group is, with the pooling and scale of the options.

        Returns:
            float32 [texts, dim]. A text stands alone, without a template.
        """
