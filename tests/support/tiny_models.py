"""Tiny random models with a tiny tokenizer stand in for real ones."""

from pathlib import Path
from typing import Any

TEXT = "do you like tea the sea yes no answer very much"
WORDS = ["[UNK]", "[PAD]", *TEXT.split()]
TINY: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def make_model(kind: str, **config: Any) -> Any:
    """The model of transformers of a kind, e.g. "Bert", whose module is imported here.

    It takes seconds to import, so that no test module imports it.
    """
    import transformers

    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))


def save_model(path: Path, kind: str) -> str:
    """Write a "bert" or "llama" that knows WORDS; returns its path."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    # Llama's tokenizers have no pad token.
    special = {"unk_token": "[UNK]"} | ({"pad_token": "[PAD]"} if kind == "bert" else {})
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(path)
    make_model(kind.title(), **TINY).save_pretrained(path)
    return str(path)
