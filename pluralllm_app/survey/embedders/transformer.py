"""Embeddings of a transformers model: the hidden states of a prompt's tokens, pooled.

How they are pooled is what the model itself states in the files of sentence-transformers, or else
the mean over the tokens, as in the paper.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from itertools import chain, cycle, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from pluralllm_app.core.segments import Floats, Halves, segment_rows, segment_starts
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.loading import (
    check_config,
    check_vocabulary,
    load_model,
    load_tokenizer,
)
from pluralllm_app.survey.embedders.model_files import ModelFiles
from pluralllm_app.survey.embedders.names import full_name
from pluralllm_app.survey.embedders.pooling import Head, pool
from pluralllm_app.survey.embedders.prefix_tree import (
    Beginning,
    PrefixTree,
    batches,
    common_beginning,
    padded_tokens,
    path_states,
    takes_trees,
    tree_inputs,
)
from pluralllm_app.survey.embedders.processor import one_thread_each
from pluralllm_app.survey.embedders.sentence import read_sentence_config
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.unfinished import UnfinishedRows

BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}  # padding included
MOST_UNKNOWN = (0.2, 0.5)  # of the tokens that are not special: without a warning, and at all
LEAST_KNOWN = 0.8  # of the tokens that the weights know; some are often kept free
MOST_TOKENS = 2048  # longest prompt, for models that state no limit of their own


class TransformerEmbedder:
    """Embeds prompts with a model from the hub or from a local path.

    Where there are GPUs, the model runs on all of them in bfloat16, otherwise in float32. Weights
    are read from safetensors files only, and no code of a model is run. A causal model computes
    what the prompts of a question have in common only once.
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
            SurveyError: there is no such template or model, or something about the model's files
                is wrong or not supported.
        """
        if template not in TEMPLATES:
            raise SurveyError(f"unknown template {template!r}: {did_you_mean(template, TEMPLATES)}")
        self.template = template
        gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        self._devices = devices or gpus or [torch.device("cpu")]
        self._files = ModelFiles.find(name)
        self._config = read_sentence_config(self._files)
        place = self._config.transformer
        self._read = [*self._config.files, *check_config(self._files, place)]
        self._read += self._files.check_tokenizer(place)
        self._read += self._files.check_weights(place)
        self._tokenizer = load_tokenizer(self._files, place)
        self._model = load_model(self._files, place, self._devices[0])
        check_vocabulary(self._files, self._tokenizer, self._model)
        hidden = self._model.config.get_text_config().hidden_size
        self._head = Head(self._files, self._config, hidden)
        self._prompt_tokens: list[int] = self._tokenizer(self._worded(""))["input_ids"]
        if len(self._prompt_tokens) >= (limit := self._most_tokens()):
            raise self._files.fault(
                f"it takes {limit:,} tokens, and its default prompt and special tokens are "
                f"{len(self._prompt_tokens):,}, so that no text is left: choose another model, or "
                "mend what its files state"
            )
        # Llama's tokenizer has no id for padding, and some have one that the weights lack. Any id
        # will do, because padding is masked.
        padding = self._tokenizer.pad_token_id or 0
        self._padding: int = padding if padding < self._known_tokens() else 0

    @property
    def name(self) -> str:
        """The model's name on the hub, if it is from there, and the hash of its files."""
        return full_name(None if self._files.local else self._files.name, self._digest_of_files)

    @cached_property
    def _digest_of_files(self) -> str:
        return self._files.digest(self._read)

    def embed(self, questions: Questions, console: Console, unfinished: Path) -> Halves:
        """Return float16 [rows, dim], one row for each option.

        An embedding that was interrupted and continued gives the same bits as one that was not.

        Raises:
            SurveyError: the model gives numbers that are not finite in float16, the tokenizer is
                that of another model, or the directory `unfinished` holds rows of another
                embedding.
        """
        line = f"Embedder: {self._config.summary()}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
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
        rows = np.empty((len(prompts), self._head.width), np.float16)
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
            for vectors in self._in_turn(batched, common if as_trees else None):
                start, end = end, end + len(vectors)
                rows[start:end] = vectors.half().numpy()
                if not np.isfinite(rows[start:end]).all():
                    raise self._files.fault(
                        "it gives numbers that are not finite in float16: choose another model"
                    )
                unfinished_rows.keep(rows[:end])
                progress.update(task, completed=end)
        return rows[np.argsort(order)]

    def describe(self, texts: Sequence[str]) -> Floats:
        """Return float32 [texts, dim]: each text alone, without a template.

        A text that is too long is cut at the right, because it begins with the group's name.

        Raises:
            SurveyError: the tokenizer makes nothing of a text.
        """
        self._tokenizer.truncation_side = "right"
        tokens = self._tokenizer(
            [self._worded(text) for text in texts], truncation=True, max_length=self._most_tokens()
        )
        trees = [PrefixTree.of([ids]) for ids in tokens["input_ids"]]
        for text, tree in zip(texts, trees, strict=True):
            if not tree.tokens:
                raise self._files.fault(
                    f"it makes no token of the description {text!r}: word it in another "
                    "way, or do without"
                )
        self._check_tokens([tree.tokens for tree in trees])
        rows = np.empty((len(trees), self._head.width), np.float32)
        with one_thread_each():
            for batch in batches(trees, BATCH_TOKENS[self._devices[0].type]):
                some = [trees[index] for index in batch]
                rows[batch] = self._vectors(some, self._model, None).numpy()
        return rows

    def _worded(self, text: str) -> str:
        text = f"{self._config.prompt}{text}"
        return text.lower() if self._config.lower_case else text

    def _tokenize(self, questions: Questions, console: Console) -> list[list[int]]:
        """Return the token ids of each row's prompt, cut where it is too long.

        Tokens are left out after the model's own prompt, because the option is at the end.
        """
        prompts = chain.from_iterable(
            map(TEMPLATES[self.template], questions.texts, questions.options)
        )
        worded = [self._worded(prompt) for prompt in prompts]
        tokens: list[list[int]] = self._tokenizer(worded, verbose=False)["input_ids"]
        self._check_tokens(tokens)
        self._check_unknown(tokens, console)
        own, rows = len(self._tokenizer), self._known_tokens()
        if own < LEAST_KNOWN * rows:
            _warn(
                f"the embedder's tokenizer has {own:,} tokens, and its weights know {rows:,}: see "
                "that it is the model's own, and whole",
                console,
            )
        limit, cut = self._most_tokens(), 0
        for row, ids in enumerate(tokens):
            if len(ids) > limit:
                kept = self._leading(ids)
                tokens[row] = ids[:kept] + ids[kept + len(ids) - limit :]
                cut += 1
        if cut:
            console.print(f"{cut:,} prompts exceed {limit} tokens and were cut at the left")
        return tokens

    def _leading(self, ids: Sequence[int]) -> int:
        """Return how many tokens a text begins with that are special or the model's prompt."""
        pairs = zip(self._prompt_tokens, ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _check_tokens(self, tokens: Sequence[Sequence[int]]) -> None:
        known = self._known_tokens()
        highest = max(map(max, filter(None, tokens)), default=0)
        if highest >= known:
            raise self._files.fault(
                f"its tokenizer gives token {highest:,}, and its weights know {known:,}: the "
                "tokenizer is that of another model, copy the model's own"
            )

    def _check_unknown(self, tokens: Sequence[Sequence[int]], console: Console) -> None:
        unknown = self._tokenizer.unk_token_id
        special = {*self._tokenizer.all_special_ids} - {unknown}
        words = [id_ for ids in tokens for id_ in ids if id_ not in special]
        share = words.count(unknown) / max(1, len(words))
        warned, refused = MOST_UNKNOWN
        if share > refused:
            raise self._files.fault(
                f"its tokenizer does not know {share:.0%} of the tokens of the questions: copy the "
                "model's own if it is that of another model, or choose a model that knows the "
                "language"
            )
        if share > warned:
            _warn(
                f"the embedder's tokenizer does not know {share:.0%} of the tokens: choose a model "
                "that knows the language",
                console,
            )

    def _known_tokens(self) -> int:
        known: int = self._model.get_input_embeddings().weight.shape[0]
        return known

    def _most_tokens(self) -> int:
        """Return how many tokens a text may have, by the least of what states a limit."""
        # A tokenizer without a limit states an astronomical number, and some models state nothing.
        stated: int = self._tokenizer.model_max_length
        limits = [stated, MOST_TOKENS]
        config = self._model.config.get_text_config()
        positions: int = getattr(config, "max_position_embeddings", MOST_TOKENS)
        for name, module in self._model.named_modules():
            # RoBERTa and its kin count positions from the one after that of padding.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None):
                positions -= module.padding_idx + 1
        limits.append(positions)
        if self._config.most_tokens:
            limits.append(self._config.most_tokens)
        return int(min(limit for limit in limits if limit > 0))  # XLNet states -1 for none

    def _in_turn(
        self, batched: Sequence[Sequence[PrefixTree]], common: Sequence[int] | None
    ) -> Iterator[torch.Tensor]:
        """Yield the vectors of each batch; GPUs, or cores, compute batches side by side.

        `common` holds the tokens with which all prompts begin; it is None for an encoder.
        """
        place = self._config.transformer
        others = [load_model(self._files, place, device) for device in self._devices[1:]]
        with torch.inference_mode():
            places = [
                (model, None if common is None else Beginning(model, common))
                for model in (self._model, *others)
            ]
        if self._devices[0].type == "cpu" and not others:
            places *= torch.get_num_threads()
        # One thread for each GPU, where it mostly waits, or for each core.
        with ExitStack() as stack:
            stack.enter_context(one_thread_each())
            pools = [ThreadPoolExecutor(1) for _ in places]
            for pool_ in pools:
                stack.callback(pool_.shutdown, cancel_futures=True)
            waiting = deque(
                pool_.submit(self._vectors, trees, *place)
                for trees, pool_, place in zip(batched, cycle(pools), cycle(places), strict=False)
            )
            while waiting:
                yield waiting.popleft().result()

    @torch.inference_mode()
    def _vectors(
        self, trees: Sequence[PrefixTree], model: Any, beginning: Beginning | None
    ) -> torch.Tensor:
        """Return float32 [prompts, dim], the vector of each prompt.

        The trees continue `beginning`. For an encoder it is None, and each tree is one prompt.
        """
        ids, real = padded_tokens(trees, self._padding)
        if beginning is None:
            inputs = {"attention_mask": real.long().to(model.device)}
        else:
            inputs = tree_inputs(trees, ids.shape[1], beginning, model)
        output = model(input_ids=ids.to(model.device), **inputs)
        skipped = 0 if self._config.pools_prompt else self._prompt_length()
        pooled = [
            pool(states, self._config.poolings, min(skipped, len(states) - 1))
            for states in path_states(trees, output.last_hidden_state, beginning)
        ]
        return self._head(torch.stack(pooled).cpu())

    def _prompt_length(self) -> int:
        """Return how many tokens are those of the model's prompt, with special ones before it."""
        if not self._config.prompt:
            return 0
        *_, last = self._prompt_tokens
        return len(self._prompt_tokens) - (last in self._tokenizer.all_special_ids)

    def _digest(self, common: Sequence[int], trees: Sequence[PrefixTree]) -> str:
        """Return a hash of everything that determines the rows and their order on one machine."""
        description = [
            self._digest_of_files,
            [torch.__version__, transformers.__version__, self._devices[0].type, BATCH_TOKENS],
            [common, [(tree.tokens, tree.paths) for tree in trees]],
        ]
        return hashlib.sha256(json.dumps(description).encode()).hexdigest()


def _warn(text: str, console: Console) -> None:
    console.print(f"[bold yellow]Warning:[/] {text}", soft_wrap=True, highlight=False)
