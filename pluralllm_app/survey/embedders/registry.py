"""The embedders of `pluralllm prepare --embedder`.

An embedder with a name of its own is a module here and an entry in `EMBEDDERS`. Every other name is
that of a transformers model. Modules are imported when they are used: transformers takes seconds.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pluralllm_app.core.parts import need
from pluralllm_app.errors import SurveyError

if TYPE_CHECKING:
    from pluralllm_app.survey.embedders.base import Embedder


def _hashing() -> "Embedder":
    from pluralllm_app.survey.embedders.hashing import HashingEmbedder

    return HashingEmbedder()


# Small, for some 50 languages, and trained to give sentences of one meaning one vector, without a
# prompt. Apache-2.0.
SENTENCE_EMBEDDER = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"

EMBEDDERS: dict[str, Callable[[], "Embedder"]] = {"hashing": _hashing}


def advice(embedder: str, synthetic: bool, remedy: str) -> str:
    """Return a line that recommends a sentence embedder in place of hashing, or "".

    Args:
        embedder: of the survey.
        synthetic: whether its answers are made up, so that better vectors are of no use.
        remedy: what to do, in words that go on after a colon.
    """
    if embedder != "hashing" or synthetic:
        return ""
    return (
        "The questions were embedded by hashing, which knows words by their spelling only. A "
        "sentence embedder knows what they mean, so that answers to one question tell something "
        f"about another in other words: {remedy}"
    )


def load_embedder(name: str, template: str | None = None) -> "Embedder":
    """Return the embedder called `name`, or the transformers model of that hub name or path.

    Raises:
        SurveyError: there is no such model or template, the embedder does not use templates, or
            Python runs without docstrings.
        MissingPartError: it is a transformers model, and transformers is not installed.
    """
    if name in EMBEDDERS:
        if template is not None:
            raise SurveyError(f"embedder {name!r} has no prompt template: leave --template out")
        return EMBEDDERS[name]()
    need("embed", f"the transformers model {name!r}")
    if sys.flags.optimize > 1:
        raise SurveyError(
            f"embedder {name!r}: transformers reads its own docstrings, which Python leaves out "
            "with PYTHONOPTIMIZE=2 or -OO: unset it"
        )
    from pluralllm_app.survey.embedders.transformer import TransformerEmbedder

    return TransformerEmbedder(name, template or "plain")
