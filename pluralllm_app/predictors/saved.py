"""Saving and loading predictors of any kind: config.json, model.safetensors and a card, README.md.

config.json names the kind. Arrays are read from model.safetensors alone, never from a pickle. The
survey's questionnaire may lie beside them, see `survey.shared`, and training.json for the card.
"""

import json
from pathlib import Path
from textwrap import shorten
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pluralllm_app.core.atomic import read_json
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import PredictorError, UserError
from pluralllm_app.predictors.base import Arrays, ArraysError, ContextPredictor
from pluralllm_app.predictors.card import Training, write_card
from pluralllm_app.predictors.registry import KINDS, predictor_class
from pluralllm_app.survey.shared import TEXTS, VECTORS, Questionnaire

CONFIG, ARRAYS, CARD = "config.json", "model.safetensors", "README.md"
TRAINING = "training.json"
# What restoring raises where a config names nothing, something of another type, or 0 or infinity.
_OF_A_CONFIG = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
_GIVE = "give a directory that a predictor was saved in, such as best/ of a run"


def save_predictor(
    predictor: ContextPredictor,
    directory: str | Path,
    questionnaire: Questionnaire | None = None,
    training: Training | None = None,
) -> None:
    """Write a predictor to a directory, which is made, or whose files of the same names go.

    Args:
        predictor: of any kind.
        directory: where to.
        questionnaire: of its survey; with it the predictor can be used by the questions' texts.
        training: how it was made, for its card.

    Raises:
        OSError: the directory cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = {"kind": predictor.kind, **predictor.config()}
    arrays = {name: np.ascontiguousarray(array) for name, array in predictor.arrays().items()}
    (directory / CONFIG).write_text(json.dumps(config, sort_keys=True, indent=2), "utf-8")
    (directory / ARRAYS).write_bytes(save(arrays))
    (directory / CARD).write_text(write_card(predictor, questionnaire, training), "utf-8")
    if questionnaire is not None:
        questionnaire.save(directory)
    if training is not None:
        content = msgspec.json.format(msgspec.json.encode(training), indent=1)
        (directory / TRAINING).write_bytes(content)


def load_predictor(source: str | Path) -> ContextPredictor:
    """Load a predictor from a directory, or from a repository of the Hugging Face hub by name.

    A config.json without a kind is that of a GPO: runs of earlier versions wrote none, nor does the
    published code.

    >>> predictor = load_predictor("runs/20260101-120000-seed0/best")

    Raises:
        PredictorError: there is none, or its files are damaged or do not belong together.
    """
    config_file, arrays_file = (_needed(source, name) for name in (CONFIG, ARRAYS))
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
    except _OF_A_CONFIG as error:
        raise PredictorError(
            f"{config_file} describes no predictor of kind {kind!r}: {error}"
        ) from error


def load_questionnaire(source: str | Path) -> Questionnaire | None:
    """Load the questionnaire beside a saved predictor; None where there is none.

    Raises:
        SurveyError: its files are damaged, or one is missing.
    """
    texts = find_file(source, TEXTS)
    vectors = texts and find_file(source, VECTORS)
    if texts is None:
        return None
    return Questionnaire.load(texts, vectors or texts.with_name(VECTORS))


def load_training(source: str | Path) -> Training | None:
    """Load what is said of how a saved predictor was made; None where nothing is.

    Raises:
        PredictorError: the file is damaged.
    """
    file = find_file(source, TRAINING)
    if file is None:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Training)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise PredictorError(f"{file} is damaged ({error}): remove it, or copy it again") from error


def find_file(source: str | Path, name: str) -> Path | None:
    """Where a file of a predictor is on this machine, None where it has none.

    One of the Hugging Face hub is downloaded.

    Raises:
        PredictorError: there is no such directory, nor does the hub give it.
    """
    if isinstance(source, Path) or Path(source).is_dir():
        return Path(source) / name if (Path(source) / name).exists() else None
    # Here, since it takes as long to import as everything else together.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except (OSError, ValueError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise PredictorError(
            f"there is no predictor {source!r}: it is no directory, and the Hugging Face hub gives "
            f"no {name} of it ({shorten(str(error), 200)})"
        ) from error


def _needed(source: str | Path, name: str) -> Path:
    file = find_file(source, name)
    if file is None:
        raise PredictorError(
            f"{Path(source) / name} is missing, and no other form is read: {_GIVE}"
        )
    return file


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except UserError as error:
        raise PredictorError(str(error)) from error


def _read_arrays(file: Path) -> Arrays:
    try:
        arrays: Arrays = load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise PredictorError(f"{file} is damaged, or no file of numbers: {error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise PredictorError(f"{file} is damaged: {name} is not all finite")
    return arrays
