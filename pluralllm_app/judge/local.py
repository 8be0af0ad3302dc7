"""A language model of transformers on this machine, asked for the log-probabilities of letters.

What is read is the one token that a prompt is continued by: the letter, after a space where the
model has no chat template. lm-evaluation-harness scores letters in the same way.
"""

import inspect
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

from pluralllm_app.judge.answers import LETTERS_KIND, Answer
from pluralllm_app.judge.plan import LETTERS, Prompt
from pluralllm_app.survey.embedders.loading import (
    check_config,
    check_vocabulary,
    first_line,
    load_model,
    load_tokenizer,
)
from pluralllm_app.survey.embedders.model_files import ModelFiles
from pluralllm_app.use.prompts import labels

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}  # padding included
ROLE = "model"


class LocalModel:
    """A model whose files are here, or on the hub."""

    kinds = (LETTERS_KIND,)

    def __init__(self, name: str) -> None:
        """Check a model's files; its weights are loaded when it is to answer.

        Raises:
            SurveyError: there is none, files of it are damaged or missing, or it needs code of its
                own, which is not run.
        """
        self._files = ModelFiles.find(name, ROLE)
        self.name = os.path.basename(os.path.abspath(name)) if self._files.local else name
        self._read = [*check_config(self._files, ""), *self._files.check_tokenizer("")]
        self._read += self._files.check_weights("")
        templates = ("chat_template.jinja", "chat_template.json")
        self._read += [each for each in templates if (self._files.root / each).exists()]
        self._tokenizer = load_tokenizer(self._files, "")
        self._model: Any = None

    @cached_property
    def identity(self) -> str:
        """The hash of its files."""
        return self._files.digest(self._read)

    def connect(self, first: Prompt) -> str:
        """Load its weights, on a GPU where there is one."""
        if self._model is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self._model = load_model(self._files, "", device, "logits")
            check_vocabulary(self._files, self._tokenizer, self._model)
            self._check_causal()
            self._letters = self._letter_tokens(self._worded(first))
        return LETTERS_KIND

    def ask(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """Ask in batches of prompts of like length."""
        tokens = [self._tokens(self._worded(prompt)) for prompt in prompts]
        self._check_tokens(tokens)
        order = sorted(range(len(prompts)), key=lambda place: len(tokens[place]))
        while order:
            count = self._fitting([len(tokens[place]) for place in order])
            batch, order = order[:count], order[count:]
            rows = self._probabilities([tokens[place] for place in batch])
            for place, row in zip(batch, rows, strict=True):
                yield place, self._answer(row, prompts[place])

    def _fitting(self, lengths: Sequence[int]) -> int:
        """How many prompts of these lengths, which rise, go through the model together."""
        if "position_ids" not in inspect.signature(self._model.forward).parameters:
            return 1  # it would count padding
        most = BATCH_TOKENS[self._model.device.type]
        fitting = (count for count, longest in enumerate(lengths, 1) if count * longest > most)
        return max(1, next(fitting, len(lengths) + 1) - 1)

    def way(self, kind: str) -> str:
        """How its answers are had."""
        chat = "in its chat template" if self._tokenizer.chat_template else "without a template"
        return f"the log-probabilities of the letters after the prompt, {chat}"

    @torch.inference_mode()
    def _probabilities(self, tokens: Sequence[Sequence[int]]) -> list[list[float]]:
        """[prompts, letters] probability of each letter to come next."""
        longest = max(map(len, tokens))
        ids = torch.zeros(len(tokens), longest, dtype=torch.int64)
        real = torch.zeros_like(ids)
        for row, own in enumerate(tokens):  # padded at the left, where nothing is to come next
            ids[row, longest - len(own) :] = torch.tensor(own)
            real[row, longest - len(own) :] = 1
        inputs = {"attention_mask": real, "position_ids": (real.cumsum(1) - 1).clamp(min=0)}
        known = inspect.signature(self._model.forward).parameters
        placed = {name: each.to(self._model.device) for name, each in inputs.items()}
        more: dict[str, Any] = {name: each for name, each in placed.items() if name in known}
        if "logits_to_keep" in known:
            more["logits_to_keep"] = 1
        logits = self._model(input_ids=ids.to(self._model.device), **more).logits[:, -1]
        found = logits.double().softmax(-1)[:, self._letters]
        rows: list[list[float]] = found.tolist()
        return rows

    def _answer(self, row: Sequence[float], prompt: Prompt) -> Answer:
        options = len(prompt.question.options)
        try:
            return Answer.checked(row[:options], 1.0, options)
        except ValueError as error:
            raise self._files.fault(
                f"it gives no probabilities of letters ({error}): its weights may be damaged"
            ) from error

    def _worded(self, prompt: Prompt) -> str:
        """What the model reads."""
        if not self._tokenizer.chat_template:
            return prompt.text
        message = {"role": "user", "content": prompt.text}
        try:
            worded: str = self._tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise every kind
            raise self._files.fault(
                f"its chat template does not take a question ({first_line(error)}): mend it"
            ) from error
        return worded

    def _tokens(self, text: str) -> list[int]:
        # A chat template writes special tokens itself.
        special = not self._tokenizer.chat_template
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return ids

    def _letter_tokens(self, text: str) -> list[int]:
        """The token of each letter after a prompt."""
        space = "" if self._tokenizer.chat_template else " "
        before = self._tokens(text)
        found = []
        for letter in labels(LETTERS):
            *start, last = self._tokens(f"{text}{space}{letter}")
            if start != before or last in found or last == self._tokenizer.unk_token_id:
                raise self._files.fault(
                    f"its tokenizer has no token of its own for the letter {letter} after a "
                    "prompt: choose another model, or serve this one and give its address"
                )
            found.append(last)
        return found

    def _check_tokens(self, tokens: Sequence[Sequence[int]]) -> None:
        config = self._model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or math.inf
        longest = max(map(len, tokens))
        if longest >= limit:
            raise self._files.fault(
                f"it reads {limit:,} tokens, and the longest prompt has {longest:,}: choose "
                "another model, or a survey with shorter questions"
            )
        highest = max(*map(max, tokens), *self._letters)
        if highest >= (known := self._model.get_input_embeddings().weight.shape[0]):
            raise self._files.fault(
                f"its tokenizer gives token {highest:,}, and its weights know {known:,}: the "
                "tokenizer is that of another model, copy the model's own"
            )

    @torch.inference_mode()
    def _check_causal(self) -> None:
        """Refuse an encoder, which transformers loads as well: it looks at what comes next."""
        pairs = torch.tensor([[1, 1], [1, 2]], device=self._model.device)
        first, other = self._model(input_ids=pairs).logits[:, 0].float()
        if not torch.allclose(first, other, rtol=1e-2, atol=1e-2):
            raise self._files.fault(
                f"{type(self._model).__name__} is no language model that predicts what comes next: "
                "choose another model"
            )
