"""Embedders: what turns each option of each question into a vector."""

from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.hashing import HashingEmbedder

DEFAULT_TEMPLATE = "plain"


class Embedder(Protocol):
    """Embeds questions with their options, the same in every process."""

    @property
    def name(self) -> str:
        """What `load_embedder` was given."""

    @property
    def template(self) -> str | None:
        """The name of the prompt template, None where there is none."""

    def embed(self, questions: Questions, console: Console, unfinished: Path) -> torch.Tensor:
        """Return float16 [rows, dim], one row per option; progress goes to `console`.

        An embedder that takes long keeps what is done in the directory `unfinished`, for another
        call to go on from; the caller removes it.
        """


def load_embedder(name: str, template: str | None = None) -> Embedder:
    """Return the embedder called `name`: `hashing`, or a transformers model by hub name or path.

    Raises:
        SurveyError: the model or the template does not exist or does not fit.
    """
    if name == HashingEmbedder.name:
        if template is not None:
            raise SurveyError("the hashing embedder has no prompt template: leave --template out")
        return HashingEmbedder()
    # transformers takes seconds to import, which the demo need not wait for.
    from pluralllm_app.survey.embedders.transformer import TransformerEmbedder

    return TransformerEmbedder(name, template or DEFAULT_TEMPLATE)
