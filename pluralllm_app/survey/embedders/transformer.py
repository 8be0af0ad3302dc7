"""Embeddings of a transformers model: the mean of its last hidden layer over a prompt's tokens."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi, try_to_load_from_cache
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from pluralllm_app.core.segments import Floats, Halves, segment_rows, segment_starts
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.prefix_tree import (
    Beginning,
    PrefixTree,
    batches,
    common_beginning,
    padded_tokens,
    path_means,
    takes_trees,
    tree_inputs,
)
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.unfinished import UnfinishedRows

BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}  # padding included
MOST_TOKENS = 2048  # longest prompt, for models that state no limit of their own


class TransformerEmbedder:
    """Embeds prompts with a model from the hub or from a local path.

    Where there are GPUs, the model runs on all of them in bfloat16, otherwise in float32. Weights
    are read from safetensors files only. A causal model computes what the prompts of a question
    have in common only once.
    """

    def __init__(
        self, name: str, template: str, devices: Sequence[torch.device] | None = None
    ) -> None:
        """Load the model called `name`.

        Args:
            name: its name on the hub, or the path of its directory.
            template: the name of one of TEMPLATES.
            devices: where it runs, one copy for each; all GPUs or else the CPU if not given.

        Raises:
            SurveyError: there is no such template or model, or the model is an encoder-decoder.
        """
        if template not in TEMPLATES:
            raise SurveyError(f"unknown template {template!r}: {did_you_mean(template, TEMPLATES)}")
        if name.startswith((os.sep, ".", "~")) and not os.path.isdir(os.path.expanduser(name)):
            raise SurveyError(f"embedder {name!r} is not a directory: check --embedder")
        self.name = name
        self.template = template
        gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        self._devices = devices or gpus or [torch.device("cpu")]
        self._path = os.path.expanduser(name)
        _check_available(self._path)
        self._tokenizer, self._model = _load(self._path, self._devices[0])

    def embed(self, questions: Questions, console: Console, unfinished: Path) -> Halves:
        """Return float16 [rows, dim], one row for each option.

        An embedding that was interrupted and continued gives the same bits as one that was not.

        Raises:
            SurveyError: the model gives numbers that are not finite in float16, or the directory
                `unfinished` holds rows of another embedding.
        """
        prompts = self._tokenize(questions, console)
        as_trees = takes_trees(self._model, max(map(len, prompts)))
        sizes = questions.counts if as_trees else np.ones(len(prompts), np.int64)
        first = segment_starts(sizes)
        common = common_beginning(prompts) if as_trees else []
        prompts = [prompt[len(common) :] for prompt in prompts]
        trees = [PrefixTree.of(prompts[i : i + n]) for i, n in zip(first, sizes, strict=True)]
        plan = list(batches(trees, BATCH_TOKENS[self._devices[0].type]))
        order = np.concatenate([segment_rows(first[batch], sizes[batch]) for batch in plan])

        # Rows are in the order of the plan, so that the finished ones always come first.
        width = self._model.config.get_text_config().hidden_size
        rows = np.empty((len(prompts), width), np.float16)
        unfinished_rows = UnfinishedRows(unfinished, self._digest(common, trees))
        finished = unfinished_rows.resume(rows)
        if finished:
            console.print(f"{finished:,} of {len(rows):,} options are embedded already")
        progress = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        ends = np.cumsum([sizes[batch].sum() for batch in plan])
        plan = plan[int(np.searchsorted(ends, finished, side="right")) :]
        batched = [[trees[index] for index in batch] for batch in plan]
        with progress:
            task = progress.add_task("embedding options", total=len(rows), completed=finished)
            end = finished
            for means in self._in_turn(batched, common if as_trees else None):
                start, end = end, end + len(means)
                rows[start:end] = means.half().numpy()
                if not np.isfinite(rows[start:end]).all():
                    raise SurveyError(
                        f"embedder {self.name!r} gives numbers that are not finite in float16: "
                        "choose another model"
                    )
                unfinished_rows.keep(rows[:end])
                progress.update(task, completed=end)
        return rows[np.argsort(order)]

    def describe(self, texts: Sequence[str]) -> Floats:
        """Return float32 [texts, dim]: the mean over the tokens of each text, without a template.

        A text that is too long is cut at the right, because it begins with the group's name.

        Raises:
            SurveyError: the tokenizer makes nothing of a text.
        """
        self._tokenizer.truncation_side = "right"
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self._most_tokens())
        trees = [PrefixTree.of([ids]) for ids in tokens["input_ids"]]
        for text, tree in zip(texts, trees, strict=True):
            if not tree.tokens:
                raise SurveyError(
                    f"embedder {self.name!r} makes no token of the description {text!r}: give "
                    "another one, or pass --descriptions none"
                )
        rows = np.empty((len(trees), self._model.config.get_text_config().hidden_size), np.float32)
        for batch in batches(trees, BATCH_TOKENS[self._devices[0].type]):
            rows[batch] = self._means([trees[index] for index in batch], self._model, None).numpy()
        return rows

    def _tokenize(self, questions: Questions, console: Console) -> list[list[int]]:
        """Return the token ids of each row's prompt, cut at the left where it is too long."""
        prompts = list(
            chain.from_iterable(map(TEMPLATES[self.template], questions.texts, questions.options))
        )
        limit = self._most_tokens()
        tokens: list[list[int]] = self._tokenizer(prompts, verbose=False)["input_ids"]
        long = [row for row, ids in enumerate(tokens) if len(ids) > limit]
        if long:
            # At the left, because the option is at the end of the prompt.
            self._tokenizer.truncation_side = "left"
            cut = self._tokenizer(
                [prompts[row] for row in long], truncation=True, max_length=limit
            )["input_ids"]
            for row, ids in zip(long, cut, strict=True):
                tokens[row] = ids
            console.print(f"{len(long):,} prompts exceed {limit} tokens and were cut at the left")
        return tokens

    def _most_tokens(self) -> int:
        # A tokenizer without a limit states an astronomical number, and some models state nothing.
        config = self._model.config.get_text_config()
        positions: int = getattr(config, "max_position_embeddings", MOST_TOKENS)
        stated: int = self._tokenizer.model_max_length
        return min(stated, positions, MOST_TOKENS)

    def _in_turn(
        self, batched: Sequence[Sequence[PrefixTree]], common: Sequence[int] | None
    ) -> Iterator[torch.Tensor]:
        """Yield the means of each batch; several GPUs compute batches side by side.

        `common` holds the tokens with which all prompts begin; it is None for an encoder.
        """
        others = self._devices[1:]
        models = [self._model, *(_load(self._path, device)[1] for device in others)]
        with torch.inference_mode():
            places = [
                (model, None if common is None else Beginning(model, common)) for model in models
            ]
        if not others:
            yield from (self._means(trees, *places[0]) for trees in batched)
            return
        # One thread for each GPU: it mostly waits.
        with ExitStack() as stack:
            pools = [ThreadPoolExecutor(1) for _ in places]
            for pool in pools:
                stack.callback(pool.shutdown, cancel_futures=True)
            waiting = deque(
                pool.submit(self._means, trees, *place)
                for trees, pool, place in zip(batched, cycle(pools), cycle(places), strict=False)
            )
            while waiting:
                yield waiting.popleft().result()

    @torch.inference_mode()
    def _means(
        self, trees: Sequence[PrefixTree], model: Any, beginning: Beginning | None
    ) -> torch.Tensor:
        """Return float32 [prompts, dim], the mean hidden state over each prompt's own tokens.

        The trees continue `beginning`. For an encoder it is None, and each tree is one prompt.
        """
        # Llama's tokenizer has no id for padding; any id will do, because padding is masked.
        ids, real = padded_tokens(trees, self._tokenizer.pad_token_id or 0)
        if beginning is None:
            inputs = {"attention_mask": real.long().to(model.device)}
        else:
            inputs = tree_inputs(trees, ids.shape[1], beginning, model)
        output = model(input_ids=ids.to(model.device), **inputs)
        return path_means(trees, output.last_hidden_state, beginning).cpu()

    def _digest(self, common: Sequence[int], trees: Sequence[PrefixTree]) -> str:
        """Return a hash of everything that determines the rows and their order on one machine."""
        description = [
            self._model.config.to_json_string(),
            [torch.__version__, transformers.__version__, self._devices[0].type, BATCH_TOKENS],
            [common, [(tree.tokens, tree.paths) for tree in trees]],
        ]
        digest = hashlib.sha256(json.dumps(description).encode())
        # Of every weight the first numbers: training changes all, and reading all takes long.
        for name, weight in self._model.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.flatten()[:256].float().cpu().numpy().tobytes())
        return digest.hexdigest()


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
    model.config.get_text_config().use_cache = False  # nothing is generated
    return tokenizer, model.eval().to(device)
