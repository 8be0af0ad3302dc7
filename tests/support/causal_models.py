"""Tiny causal language models with random weights, whose tokenizer knows letters."""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.tiny_models import TINY

WORDS = ["[UNK]", "[END]", *ascii_uppercase, "Question", "Answer", "Yes", "No", *".:?<>"]
SMALL: dict[str, Any] = TINY | {"vocab_size": len(WORDS), "max_position_embeddings": 512}
TEMPLATE = "< {{ messages[0]['content'] }} >"


def save_causal_model(
    path: Path, template: str | None = None, kind: str = "Llama", **config: Any
) -> str:
    """Write one; returns its path. With a `template` it is a chat model."""
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[END]"
    )
    fast.chat_template = template
    fast.save_pretrained(path)
    settings = getattr(transformers, f"{kind}Config")(**{**SMALL, **config})
    head = "ForCausalLM" if kind == "Llama" else "LMHeadModel"
    model = getattr(transformers, kind + head)(settings)
    with torch.no_grad():  # random weights of the usual size prefer nothing
        for weights in model.parameters():
            weights.mul_(5)
    model.save_pretrained(path)
    return str(path)
