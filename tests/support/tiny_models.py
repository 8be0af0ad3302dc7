"""Tiny random models with a tiny tokenizer stand in for real ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pluralllm_app.survey.content import Questions

NOWHERE = Path("/no/such/directory")  # nothing is kept of what takes no time
QUESTIONS = Questions(
    ids=["0", "1"],
    texts=["do you like tea", "sea"],
    options=[["yes", "no very much"], ["yes", "no"]],
    values=[None, None],
)
TEXT = "do you like tea the sea yes no answer very much"
PACKAGE = "sentence_transformers"
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
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))


def save_model(path: Path, kind: str, ends: Sequence[str] = ()) -> str:
    """Write a "bert" or "llama" that knows WORDS; returns its path.

    `ends` are two of WORDS that the tokenizer puts before and after each text.
    """
    torch.manual_seed(0)
    # Llama's tokenizers have no pad token.
    special = {"unk_token": "[UNK]"} | ({"pad_token": "[PAD]"} if kind == "bert" else {})
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        first, last = ends
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{first} $A {last}", None, [(word, WORDS.index(word)) for word in ends]
        )
        special |= {"cls_token": first, "sep_token": last}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(path)
    make_model(kind.title(), **TINY).save_pretrained(path)
    return str(path)


def save_sentence_model(
    path: Path,
    kind: str = "bert",
    pooling: Mapping[str, Any] | None = None,
    layers: Sequence[str] = (),
    **files: Mapping[str, Any],
) -> str:
    """Write a model in the layout of sentence-transformers; returns its path.

    Its texts stand between "do" and "much". `layers` are kinds of modules after the pooling, and
    `files` holds the content of other files of its root, by their names without ".json".
    """
    save_model(path, kind, ends=("do", "much"))
    modules = ["Transformer", "Pooling", *layers]
    places = [f"{number}_{name}" if number else "" for number, name in enumerate(modules)]
    listed = [
        {"idx": number, "name": str(number), "path": place, "type": f"{PACKAGE}.models.{name}"}
        for number, (name, place) in enumerate(zip(modules, places, strict=True))
    ]
    write_json(path / "modules.json", listed)
    stated = {"word_embedding_dimension": TINY["hidden_size"], **(pooling or {})}
    write_json(path / "1_Pooling" / "config.json", stated)
    for name, place in zip(modules, places, strict=True):
        if name == "Dense":
            save_dense(path / place)
    for name, content in files.items():
        write_json(path / f"{name}.json", content)
    return str(path)


def save_dense(path: Path, wide: int = TINY["hidden_size"], out: int = 5) -> None:
    """Write a dense layer with tanh from `wide` numbers to `out`."""
    torch.manual_seed(1)
    config = {"in_features": wide, "out_features": out, "bias": True}
    activation = "torch.nn.modules.activation.Tanh"
    write_json(path / "config.json", config | {"activation_function": activation})
    linear = torch.nn.Linear(wide, out)
    tensors = {f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}
    save_file(tensors, path / "model.safetensors")


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
