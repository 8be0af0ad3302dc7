"""What a model's JSON files state in another type, or cannot be, is refused by file and key."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders.registry import load_embedder
from tests.support.tiny_models import (
    NOWHERE,
    QUESTIONS,
    TEXT,
    TINY,
    WORDS,
    make_model,
    save_sentence_model,
    write_json,
)

WEIGHTS = "model.safetensors"
GENERAL = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(save_sentence_model(tmp_path / "bert", layers=["Dense"]))


def refused(model: Path, *words: str) -> None:
    with pytest.raises(SurveyError) as error:
        load_embedder(str(model))
    for word in (str(model), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def change(file: Path, **entries: object) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    write_json(file, known | entries)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("sentence_bert_config.json", "do_lower_case", "true"),
        ("sentence_bert_config.json", "max_seq_length", True),
        (POOLING, "include_prompt", "false"),
        (POOLING, "pooling_mode_cls_token", "false"),
        (POOLING, "pooling_mode", 5),
        (POOLING, "pooling_mode", {"mean": 1}),
        (POOLING, "pooling_mode", [["mean"]]),
        (GENERAL, "prompts", ["query: "]),
        (GENERAL, "prompts", "query: "),
        (GENERAL, "prompts", {"query": 5}),
        (GENERAL, "default_prompt_name", ["query"]),
        (GENERAL, "truncate_dim", True),
        (GENERAL, "model_type", 5),
        ("2_Dense/config.json", "use_residual", "no"),
        ("2_Dense/config.json", "activation_function", None),
        ("tokenizer_config.json", "model_max_length", "512"),
        ("tokenizer_config.json", "model_max_length", 4.5),
        ("tokenizer_config.json", "do_lower_case", "false"),
    ],
)
def test_another_type_is_refused_by_file_and_key(model, file, key, value):
    change(model / file, **{key: value})
    refused(model, file, f"states {key} {value!r}"[:30], "download the model again")


@pytest.mark.parametrize(
    "content", ["null", '"x"', "5", '[{"type": "a"}]', '[{"type": 5, "path": ""}]', "[null]"]
)
def test_modules_that_are_none_are_refused(model, content):
    (model / "modules.json").write_text(content)
    refused(model, "modules.json is damaged", "download the model again")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", GENERAL, POOLING])
def test_null_is_no_file(model, file):
    (model / file).write_text("null")
    refused(model, f"{file} is damaged")


@pytest.mark.parametrize(
    ("stated", "fault"),
    [
        ({"pooling_mode": []}, "no pooling at all"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}, "no pooling at all"),
        ({"pooling_mode_attention_tokens": True}, "'pooling_mode_attention_tokens', known are"),
    ],
)
def test_a_pooling_that_is_none_or_unknown_is_refused(model, stated, fault):
    change(model / POOLING, **stated)
    refused(model, POOLING, fault)


def test_settings_of_the_right_types_and_null_are_taken(model):
    change(model / "sentence_bert_config.json", max_seq_length=None, do_lower_case=None)
    change(model / GENERAL, prompts=None, default_prompt_name=None, truncate_dim=None)
    change(model / "tokenizer_config.json", model_max_length=1e30)
    load_embedder(str(model))


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", "2"), ("hidden_size", float("nan")), ("dtype", "float999")],
)
def test_faults_of_the_configuration_are_not_blamed_on_the_tokenizer(model, key, value):
    change(model / "config.json", **{key: value})
    refused(model, "cannot load it by config.json", str(value), "choose another model")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.int64])
@pytest.mark.parametrize("place", ["", "2_Dense"])
def test_weights_as_whole_numbers_are_refused(model, kind, place):
    file = model / place / WEIGHTS
    save_file(
        {key: (9 * own).to(kind) for key, own in load_file(file).items()}, file, {"format": "pt"}
    )
    refused(model, str(Path(place, WEIGHTS)), "holds", "without the scale", "float32")


def test_weights_in_eight_bits_need_no_scale_or_are_refused(model):
    tensors = {key: own.to(torch.float8_e4m3fn) for key, own in load_file(model / WEIGHTS).items()}
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    load_embedder(str(model))
    tensors["encoder.layer.0.output.dense.weight_scale"] = torch.ones(1)
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    refused(model, "as F8_E4M3", "without the scale")


def test_positions_as_whole_numbers_are_taken(model):
    tensors = load_file(model / WEIGHTS)
    tensors["embeddings.position_ids"] = torch.arange(16)[None]
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    load_embedder(str(model))


@pytest.mark.parametrize("side", ["in_features", "out_features"])
def test_a_dense_layer_of_another_size_than_stated_is_refused(model, side):
    change(model / "2_Dense" / "config.json", **{side: 99})
    refused(model, "2_Dense/model.safetensors", "config.json states 99")


def edit_tokenizer(model: Path, **entries: object) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"] |= entries
    write_json(model / "tokenizer.json", content)


def test_an_unknown_token_that_the_vocabulary_lacks_is_refused(model):
    edit_tokenizer(model, unk_token="<nope>")
    refused(model, "its tokenizer cannot be loaded", "copy the model's tokenizer files again")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_padding_that_the_weights_do_not_know_makes_no_difference(tmp_path, kind):
    model = Path(save_sentence_model(tmp_path / kind, kind))
    console = Console(quiet=True)
    rows = load_embedder(str(model)).embed(QUESTIONS, console, NOWHERE)
    content = json.loads((model / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": len(WORDS), "content": "<pad>", "special": True} | flags)
    write_json(model / "tokenizer.json", content)
    change(model / "tokenizer_config.json", pad_token="<pad>")
    again = load_embedder(str(model)).embed(QUESTIONS, console, NOWHERE)
    np.testing.assert_allclose(again, rows, atol=2e-3)


def test_a_prompt_that_leaves_no_room_is_refused(tmp_path):
    stated = {"prompts": {"a": "tea " * 14}, "default_prompt_name": "a"}
    model = Path(save_sentence_model(tmp_path / "bert", config_sentence_transformers=stated))
    refused(model, "it takes 16 tokens, and its default prompt and special tokens are 16")
    stated["prompts"]["a"] = "tea " * 13
    load_embedder(save_sentence_model(tmp_path / "two", config_sentence_transformers=stated))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tokenizer by pairs of bytes, as vocab.json and merges.txt."""
    model = tmp_path_factory.mktemp("bpe")
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [f"{TEXT} {TEXT.title()}"] * 50
    tokenizer.train_from_iterator(texts, 330, min_frequency=1, special_tokens=special)
    tokenizer.save_model(str(model))
    size = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 64}
    make_model("Roberta", **TINY | size, pad_token_id=1).save_pretrained(model)
    write_json(model / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"})
    return model


def test_merges_that_are_cut_off_are_refused(bpe, tmp_path):
    model = tmp_path / "bpe"
    shutil.copytree(bpe, model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    lines = (model / "merges.txt").read_text().splitlines()
    for kept in (1, len(lines) // 2, len(lines) - 4):
        (model / "merges.txt").write_text("\n".join(lines[:kept]) + "\n")
        refused(model, "its tokenizer cannot make", "merges.txt", "cut off")
    (model / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer.save_pretrained(model)
    load_embedder(str(model))
    merges = json.loads((model / "tokenizer.json").read_text())["model"]["merges"]
    edit_tokenizer(model, merges=merges[: len(merges) // 2])
    refused(model, "its tokenizer cannot make", "tokenizer.json", "cut off")
