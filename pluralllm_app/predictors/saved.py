"""Saving and loading predictors of any kind: config.json, model.safetensors and a card, README.md.

config.json names the kind. Arrays are read from model.safetensors alone, never from a pickle.
"""

import json
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pluralllm_app.core.atomic import read_json
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import PredictorError, UserError
from pluralllm_app.predictors.base import Arrays, ArraysError, Predictor
from pluralllm_app.predictors.registry import KINDS, predictor_class

CONFIG, ARRAYS, CARD = "config.json", "model.safetensors", "README.md"
_GIVE = "give a directory that a predictor was saved in, such as best/ of a run"

_CARD = """---
library_name: pluralllm_app
tags:
- pluralllm
- preference-prediction
- {kind}
---

# {title}

From some questions that a group has answered, this predictor tells how the group's answers to
other questions are distributed. {about} It was made with `pluralllm_app`.
{warning}
```python
from pluralllm_app import load_predictor

predictor = load_predictor("the directory or repository that holds this file")
prediction = predictor.predict(context, target)  # prediction.shares: one for each option
```

`context` is a preference set: questions with the group's answers; `target` are questions of the
same survey. Both need the survey's embeddings as the survey was prepared. Which survey and groups
the predictor was made with, and how well it predicts them, is in run.json and rounds.jsonl of its
run.
"""
_WARNING = """
**This predictor contains the answers of the groups it was made with, in model.safetensors.** Share
it only with those who may see these answers.
"""


def save_predictor(predictor: Predictor, directory: str | Path) -> None:
    """Write a predictor to a directory, which is made, or whose files of the same names go.

    Raises:
        OSError: the directory cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = {"kind": predictor.kind, **predictor.config()}
    arrays = {name: np.ascontiguousarray(array) for name, array in predictor.arrays().items()}
    card = _CARD.format(
        kind=predictor.kind,
        title=predictor.title,
        about=predictor.about,
        warning=_WARNING if predictor.pools_answers else "",
    )
    (directory / CONFIG).write_text(json.dumps(config, sort_keys=True, indent=2), "utf-8")
    (directory / ARRAYS).write_bytes(save(arrays))
    (directory / CARD).write_text(card, "utf-8")


def load_predictor(source: str | Path) -> Predictor:
    """Load a predictor from a directory, or from a repository of the Hugging Face hub by name.

    A config.json without a kind is that of a GPO: runs of earlier versions wrote none, nor does the
    published code.

    >>> predictor = load_predictor("runs/20260101-120000-seed0/best")

    Raises:
        PredictorError: there is none, or its files are damaged or do not belong together.
    """
    config_file, arrays_file = (_file(source, name) for name in (CONFIG, ARRAYS))
    config = _read_config(config_file)
    arrays = _read_arrays(arrays_file)
    kind = config.pop("kind", "gpo")
    if kind not in KINDS:
        raise PredictorError(
            f"{config_file} names an unknown kind of predictor, {kind!r}: "
            f"{did_you_mean(str(kind), KINDS)}"
        )
    try:
        return predictor_class(kind).restore(config, arrays)
    except ArraysError as error:
        raise PredictorError(
            f"{arrays_file} holds other weights than the config.json beside it describes: {error}"
        ) from error
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise PredictorError(
            f"{config_file} describes no predictor of kind {kind!r}: {error}"
        ) from error


def _file(source: str | Path, name: str) -> Path:
    """Where a file of a predictor is on this machine; one of the hub is downloaded."""
    if isinstance(source, Path) or Path(source).is_dir():
        return Path(source) / name
    # Here, since it takes as long to import as everything else together.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise PredictorError(
            f"there is no predictor {source!r}: it is no directory, and the Hugging Face hub gives "
            f"no {name} of it ({shorten(str(error), 200)})"
        ) from error


def _read_config(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise PredictorError(f"{file} is missing: {_GIVE}")
    try:
        return read_json(file)
    except UserError as error:
        raise PredictorError(str(error)) from error


def _read_arrays(file: Path) -> Arrays:
    try:
        arrays: Arrays = load_file(file)
    except FileNotFoundError:
        raise PredictorError(f"{file} is missing, and no other form is read: {_GIVE}") from None
    except (OSError, SafetensorError, KeyError) as error:
        raise PredictorError(f"{file} is damaged, or no file of numbers: {error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise PredictorError(f"{file} is damaged: {name} is not all finite")
    return arrays
