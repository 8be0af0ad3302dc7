"""Embeddings of a transformers model: the mean of its last hidden layer over a prompt's tokens."""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi, try_to_load_from_cache
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from pluralllm_app.errors import SurveyError
from pluralllm_app.nearest import did_you_mean
from pluralllm_app.segments import Ints
from pluralllm_app.survey.raw import Questions

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}  # padding included
MOST_TOKENS = 2048  # of a prompt, for models that state no limit of their own


def _plain(question: str, options: Sequence[str]) -> Iterator[str]:
    for option in options:
        yield f"{question} Answer: {option}"


def _alpaca(question: str, options: Sequence[str]) -> Iterator[str]:
    """Prompts in the sections Alpaca was tuned on, each option as the response.

    The structure is that of the GPO paper, lettered options included; the wording is our own.
    """
    lettered = [f"{_letter(index)}. {option}" for index, option in enumerate(options)]
    for option in lettered:
        yield (
            "### Instruction:\nPick the one option that answers the question.\n\n"
            f"### Input:\n{question}\n\nOptions:\n" + "\n".join(lettered) + "\n\n"
            f"### Response:\n{option}"
        )


def _letter(index: int) -> str:
    return ascii_uppercase[index] if index < len(ascii_uppercase) else str(index + 1)


TEMPLATES = {"plain": _plain, "alpaca": _alpaca}


class TransformerEmbedder:
    """Embeds prompts with a model from the hub or from a local path.

    On a GPU the model runs in bfloat16, else in float32. Weights are read from safetensors only.
    """

    def __init__(self, name: str, template: str) -> None:
        """Load the model called `name`.

        Raises:
            SurveyError: no such template or model, or one that is no single stack of layers.
        """
        if template not in TEMPLATES:
            raise SurveyError(f"unknown template {template!r}: {did_you_mean(template, TEMPLATES)}")
        if name.startswith((os.sep, ".", "~")) and not os.path.isdir(os.path.expanduser(name)):
            raise SurveyError(f"embedder {name!r} is not a directory: check --embedder")
        self.name = name
        self.template = template
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _check_available(os.path.expanduser(name))
        self._tokenizer, self._model = _load(os.path.expanduser(name), self._device)

    def embed(self, questions: Questions, console: Console) -> torch.Tensor:
        """Return float16 [rows, dim], one row per option.

        Raises:
            SurveyError: the model gives numbers that are not finite in float16.
        """
        tokens = self._tokenize(questions, console)
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        width = self._model.config.get_text_config().hidden_size
        rows = torch.empty(len(tokens), width, dtype=torch.float16)
        progress = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        with progress, torch.inference_mode():
            task = progress.add_task("embedding options", total=len(tokens))
            for batch in _batches(lengths, BATCH_TOKENS[self._device.type]):
                rows[torch.from_numpy(batch)] = self._means([tokens[row] for row in batch])
                progress.advance(task, len(batch))
        if not rows.isfinite().all():
            raise SurveyError(
                f"embedder {self.name!r} gives numbers that are not finite in float16: "
                "choose another model"
            )
        return rows

    def _tokenize(self, questions: Questions, console: Console) -> list[list[int]]:
        """Return the token ids of each row's prompt, the longest cut at the left."""
        prompts = list(
            chain.from_iterable(map(TEMPLATES[self.template], questions.texts, questions.options))
        )
        limit = self._most_tokens()
        tokens: list[list[int]] = self._tokenizer(prompts, verbose=False)["input_ids"]
        long = [row for row, ids in enumerate(tokens) if len(ids) > limit]
        if long:
            # The option stands at the end of the prompt.
            self._tokenizer.truncation_side = "left"
            cut = self._tokenizer(
                [prompts[row] for row in long], truncation=True, max_length=limit
            )["input_ids"]
            for row, ids in zip(long, cut, strict=True):
                tokens[row] = ids
            console.print(f"{len(long):,} prompts exceed {limit} tokens and were cut at the left")
        return tokens

    def _most_tokens(self) -> int:
        # A tokenizer without a limit states an astronomic one, and some models have none.
        config = self._model.config.get_text_config()
        positions: int = getattr(config, "max_position_embeddings", MOST_TOKENS)
        stated: int = self._tokenizer.model_max_length
        return min(stated, positions, MOST_TOKENS)

    def _means(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return [batch, dim], the mean hidden state over each prompt's own tokens."""
        lengths = torch.tensor([len(ids) for ids in tokens])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]  # [batch, longest]
        # Padding is masked, so any id does where a tokenizer (Llama's) has none for it.
        ids = torch.full(mask.shape, self._tokenizer.pad_token_id or 0)
        ids[mask] = torch.tensor(list(chain.from_iterable(tokens)))
        mask = mask.to(self._device)
        output = self._model(input_ids=ids.to(self._device), attention_mask=mask.long())
        hidden = output.last_hidden_state.float().masked_fill(~mask[..., None], 0)
        means: torch.Tensor = hidden.sum(1) / mask.sum(1, keepdim=True)
        return means.half().cpu()


def _batches(lengths: Ints, budget: int) -> Iterator[Ints]:
    """Yield row indices in batches of like lengths, at most `budget` tokens with padding each."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, budget // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _check_available(name: str) -> None:
    """Refuse at once what loading would try again and again, with pages of messages."""
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise SurveyError(f"embedder {name!r} has no config.json: it is no transformers model")
    else:
        try:
            if try_to_load_from_cache(name, "config.json") is None:
                HfApi().model_info(name, timeout=10)
        except Exception as error:  # those of the hub and of its HTTP client
            raise SurveyError(
                f"the hub does not give embedder {name!r} ({str(error).splitlines()[0]}): pass "
                "hashing, the name of a model on the hub, or the path of a local one"
            ) from error


def _load(path: str, device: torch.device) -> tuple[Any, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModel.from_pretrained(path, dtype=dtype, use_safetensors=True)
    # The libraries below raise many kinds for a model that is not there or not whole.
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise SurveyError(
            f"cannot load embedder {path!r} ({error}): pass hashing, or a transformers model by "
            "hub name or local path"
        ) from error
    if model.config.is_encoder_decoder:
        raise SurveyError(f"embedder {path!r} is an encoder-decoder: choose another model")
    return tokenizer, model.eval().to(device)
