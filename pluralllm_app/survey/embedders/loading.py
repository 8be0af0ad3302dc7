"""Loading a transformers model and its tokenizer, and refusing what would be wrong in silence.

transformers fills weights that a file lacks with random numbers and only logs it, so that what it
reports is checked here.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import torch
import transformers
from tokenizers import models

from pluralllm_app.survey.embedders.model_files import AGAIN, ModelFiles
from pluralllm_app.survey.embedders.processor import use_numpy
from pluralllm_app.survey.embedders.setting_types import TOKENIZER, typed_settings

CODE_FILES = ("config.json", "tokenizer_config.json")
LEAST_TOKENS = 0.5  # of those that the weights know; only foreign tokenizers have fewer
MOST_UNMADE = 0.05  # of the tokens of several characters: some vocabularies have special ones
_OUTPUTS = {"last_hidden_state": "hidden state", "logits": "prediction"}
_NUMBER = re.compile(r"\d+")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PROBE = "a \u00e9 \u6f22 \U0001f980"  # letters, a character and a picture


def check_config(files: ModelFiles, directory: str) -> list[str]:
    """Return the paths of the model's own configuration in `directory`, having checked it.

    Raises:
        SurveyError: it is missing or damaged, states what transformers cannot use, or names code of
            the model's own or an adapter.
    """
    paths = [os.path.join(directory, name) for name in CODE_FILES]
    for path in paths:
        if "auto_map" in files.settings(path):
            raise files.fault(
                f"it needs code of its own, which {path} names and which is not run: choose "
                "another model"
            )
    if files.settings(os.path.join(directory, "adapter_config.json")):
        raise files.fault("it is an adapter of another model: merge the two, and save the result")
    config = files.json(paths[0])
    if config is None:
        raise files.fault(f"it has no {paths[0]}: it is no transformers model, pass one that is")
    if "transformers_weights" in config:
        raise files.fault(f"{paths[0]} names weights of another name: call them model.safetensors")
    longest = typed_settings(files, paths[1], TOKENIZER).get("model_max_length")
    if isinstance(longest, float) and not longest.is_integer():
        raise files.fault(f"{paths[1]} states model_max_length {longest}: mend it, or {AGAIN}")
    with _quiet():
        try:
            transformers.AutoConfig.from_pretrained(
                files.root / directory, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the libraries below raise every kind, also plain ones
            raise files.fault(
                f"transformers cannot load it by {paths[0]} ({first_line(error)}): choose another "
                f"model, or {AGAIN}"
            ) from error
    return [path for path in paths if (files.root / path).exists()]


def load_tokenizer(files: ModelFiles, directory: str) -> Any:
    """Return the tokenizer in `directory`.

    Raises:
        SurveyError: transformers cannot load it or read a text with it, or merges are missing.
    """
    with _quiet():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                files.root / directory, trust_remote_code=False, local_files_only=True
            )
            tokenizer(_PROBE, verbose=False)
        except Exception as error:  # the libraries below raise every kind, also plain ones
            raise files.fault(
                f"its tokenizer cannot be loaded ({first_line(error)}): copy the model's tokenizer "
                f"files again, or {AGAIN}"
            ) from error
    _check_merges(files, tokenizer)
    _check_capitals(files, tokenizer)
    return tokenizer


def load_model(
    files: ModelFiles, directory: str, device: torch.device, output: str = "last_hidden_state"
) -> Any:
    """Return the model in `directory` on `device`: in bfloat16 on a GPU, else in float32.

    Args:
        files: of the model.
        directory: within them.
        device: where it is to run.
        output: what it is to make of a text: hidden states, or with "logits" what comes next.

    Raises:
        SurveyError: transformers cannot load it, weights are missing or of another model, or it
            does not make this of a text by itself.
    """
    causal = output == "logits"
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with _quiet():
        try:
            model, report = kind.from_pretrained(
                files.root / directory,
                dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with a better message
            )
        except Exception as error:  # the libraries below raise every kind, also plain ones
            raise files.fault(
                f"transformers cannot load it ({first_line(error)}): choose another model, or "
                f"{AGAIN} if it should be one"
            ) from error
    _check_report(files, model, report)
    if model.config.is_encoder_decoder:
        raise files.fault("it is an encoder-decoder: choose another model")
    config = model.config.get_text_config()
    if (layers := getattr(config, "num_hidden_layers", 1)) < 1:
        raise files.fault(f"config.json states {layers} layers: {AGAIN}")
    config.use_cache = False  # nothing is generated
    model = model.eval().to(device)
    if device.type == "cpu":
        use_numpy(model)
    _try(files, model, output)
    return model


def check_vocabulary(files: ModelFiles, tokenizer: Any, model: Any) -> None:
    """Refuse the tokenizer of another model, as far as the number of its tokens shows it.

    Tokens that were added to it later may exceed what the weights know, as long as none occurs.

    Raises:
        SurveyError: it has more tokens than the weights know, or less than half of them.
    """
    known: int = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > known or len(tokenizer) < LEAST_TOKENS * known:
        count = max(tokenizer.vocab_size, len(tokenizer))
        raise files.fault(
            f"its tokenizer has {count:,} tokens, and its weights know {known:,}: the tokenizer is "
            "that of another model, or cut off; copy the model's own"
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error's text that says something, or its type."""
    if isinstance(error, KeyError):
        return f"unknown is {error}"
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first


def _check_merges(files: ModelFiles, tokenizer: Any) -> None:
    """Refuse a tokenizer by pairs of bytes that cannot make the tokens of its own vocabulary.

    It would cut words into smaller tokens than those that the model has learned.
    """
    if not tokenizer.is_fast or not isinstance(tokenizer.backend_tokenizer.model, models.BPE):
        return
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    prefix, suffix = (
        model[key] or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")
    )
    made = {left + right.removeprefix(prefix) for left, right in model["merges"]}
    added = {token["content"] for token in content["added_tokens"]}
    longer = [
        token
        for token in model["vocab"]
        if len(token.removeprefix(prefix).removesuffix(suffix)) > 1
        and token not in added
        and not _BYTE.fullmatch(token)
    ]
    unmade = [token for token in longer if token not in made]
    if len(unmade) > MOST_UNMADE * len(longer):
        raise files.fault(
            f"its tokenizer cannot make {len(unmade):,} of its {len(longer):,} tokens, the first "
            f"is {unmade[0]!r}: the merges in merges.txt or tokenizer.json are cut off, copy the "
            f"file again, or {AGAIN}"
        )


def _check_capitals(files: ModelFiles, tokenizer: Any) -> None:
    """Refuse a tokenizer that keeps capitals, of which its vocabulary has none."""
    unknown = tokenizer.unk_token_id
    small, capital = (
        [unknown in tokenizer(letter)["input_ids"] for letter in letters]
        for letters in (ascii_lowercase, ascii_uppercase)
    )
    if not any(small) and all(capital):
        raise files.fault(
            "its tokenizer keeps capitals, and its vocabulary has none, so that it does not know "
            'their words: state "do_lower_case": true in tokenizer_config.json, or copy the '
            "model's own tokenizer files"
        )


def _check_report(files: ModelFiles, model: Any, report: dict[str, Any]) -> None:
    """Refuse a model some of whose weights were not in its files, or the reverse."""
    for key, held, stated in sorted(report["mismatched_keys"]):
        raise files.fault(
            f"its weights hold {key} of the shape {list(held)}, and by config.json it has "
            f"{list(stated)}: the weights belong to another config.json, or {AGAIN}"
        )
    # What a pooler makes of the hidden states is not used.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key.split("."))
    if missing:
        raise files.fault(
            f"its weights lack {len(missing)} of {len(model.state_dict())} parameters that "
            f"{type(model).__name__} has, the first is {missing[0]}: the weights belong to another "
            f"config.json, or {AGAIN}"
        )
    known = {_NUMBER.sub("*", key) for key in model.state_dict()}
    for key in sorted(report["unexpected_keys"]):
        form = _NUMBER.sub("*", key)
        if form in known or any(form.endswith(f".{own}") for own in known):
            raise files.fault(
                f"its weights hold {key}, a layer more than config.json states: the weights belong "
                f"to another config.json, or {AGAIN}"
            )


@torch.inference_mode()
def _try(files: ModelFiles, model: Any, output: str) -> None:
    """Run one token through the model."""
    what = _OUTPUTS[output]
    try:
        ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        states = getattr(model(input_ids=ids, attention_mask=ids + 1), output)
        good = states.shape[:2] == (1, 1)
    except Exception as error:
        raise files.fault(
            f"{type(model).__name__} does not turn a text alone into {what}s "
            f"({first_line(error)}): choose another model"
        ) from error
    if not good:
        raise files.fault(f"{type(model).__name__} gives no {what} for each token")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what transformers logs and draws out of the caller's output; errors are raised."""
    log = transformers.utils.logging
    logger = logging.getLogger("transformers")
    level, bars = logger.level, log.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    log.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            log.enable_progress_bar()
