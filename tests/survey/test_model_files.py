"""Files of a model that are not whole, not its own, or code: refused by name, before anything."""

import json
import os
import shutil
from pathlib import Path
from string import ascii_lowercase

import pytest
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders.registry import load_embedder
from tests.support.tiny_models import (
    TINY,
    WORDS,
    make_model,
    save_model,
    save_sentence_model,
    write_json,
)

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"
XET = "# xet version 0\nfilesize = 90868376\nhash = '00'\n"
PAGE = "<!doctype html><html><title>Sign in</title></html>"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(save_model(tmp_path / "bert", "bert"))


def refused(model: Path, *words: str) -> None:
    with pytest.raises(SurveyError) as error:
        load_embedder(str(model))
    message = str(error.value)
    for word in (str(model), *words):
        assert word in message
    assert "\n" not in message


def change(file: Path, **entries: object) -> None:
    write_json(file, json.loads(file.read_text()) | entries)


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "config.json"])
@pytest.mark.parametrize("pointer", [LFS, XET])
def test_a_pointer_is_named(model, file, pointer):
    (model / file).write_text(pointer)
    refused(model, file, "Git LFS pointer", "git lfs pull", "download the model again")


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_web_page_in_place_of_a_file_is_named(model, file):
    (model / file).write_text(PAGE)
    refused(model, file, "web page", "download the model again")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_file_that_is_cut_off_is_named(model, file, part):
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[: int(part * len(content))])
    refused(model, file, "download the model again")


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_broken_link_is_named(model, file):
    (model / file).unlink()
    (model / file).symlink_to(model / "nowhere")
    refused(model, file, "cannot be read", "download the model again")


def test_a_model_without_tokenizer_is_refused(model):
    for file in model.glob("*token*"):
        file.unlink()
    refused(model, "there is no tokenizer", "copy the model's tokenizer files")


def test_a_vocabulary_without_merges_is_refused(model):
    (model / "tokenizer.json").unlink()
    write_json(model / "vocab.json", {"tea": 0})
    refused(model, "vocab.json without merges.txt")


def test_a_tokenizer_that_is_json_but_none_is_refused(model):
    (model / "tokenizer.json").write_text('{"model": {"type": "Nothing"}}')
    refused(model, "its tokenizer cannot be loaded")


def test_a_file_is_no_model(model):
    refused(model / WEIGHTS, "is a file: name the directory that it is in")


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
def test_a_classifier_is_refused_unless_it_says_how_texts_become_vectors(tmp_path, kind):
    plain = Path(save_model(tmp_path / "plain", "bert"))
    change(plain / "config.json", architectures=[f"BertFor{kind}"])
    refused(plain, f"calls it BertFor{kind}", "choose a sentence embedder")
    stated = Path(save_sentence_model(tmp_path / "stated"))
    change(stated / "config.json", architectures=[f"BertFor{kind}"])
    load_embedder(str(stated))


@pytest.mark.parametrize("lowers", [True, False])
def test_capitals_that_the_vocabulary_lacks_are_lowered_or_refused(model, lowers):
    vocabulary = {word: index for index, word in enumerate(["[UNK]", *ascii_lowercase])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lowers:
        tokenizer.normalizer = normalizers.Lowercase()
    make_model("Bert", **TINY | {"vocab_size": len(vocabulary)}).save_pretrained(model)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]"
    ).save_pretrained(model)
    if lowers:
        load_embedder(str(model))
    else:
        refused(model, "keeps capitals", '"do_lower_case": true')


@pytest.mark.parametrize("known", [5, 2 * len(WORDS) + 1])
def test_the_tokenizer_of_another_model_is_refused(model, known):
    other = make_model("Bert", **TINY | {"vocab_size": known})
    other.save_pretrained(model)
    refused(model, f"has 13 tokens, and its weights know {known}", "copy the model's own")


def test_a_token_that_was_added_and_that_the_weights_lack_is_refused_where_it_occurs(model):
    settings = {"additional_special_tokens": ["<new>"]}
    content = json.loads((model / "tokenizer_config.json").read_text())
    write_json(model / "tokenizer_config.json", content | settings)
    embedder = load_embedder(str(model))
    embedder.describe(["you like tea"])
    with pytest.raises(SurveyError, match="gives token 13, and its weights know 13"):
        embedder.describe(["you like <new> tea"])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5", "model.onnx", "model.gguf"])
def test_other_formats_than_safetensors_are_refused(model, name):
    (model / WEIGHTS).rename(model / name)
    refused(model, f"only {name}", "could run code", "safetensors format")


def test_a_model_without_weights_is_refused(model):
    (model / WEIGHTS).unlink()
    refused(model, f"there is no {WEIGHTS}")


def test_weights_of_another_architecture_are_refused(model, tmp_path):
    other = Path(save_model(tmp_path / "llama", "llama"))
    shutil.copy(other / WEIGHTS, model / WEIGHTS)
    refused(model, "its weights lack", "belong to another config.json")


def test_weights_that_lack_one_parameter_are_refused(model):
    tensors = load_file(model / WEIGHTS)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    refused(model, "its weights lack 1 of", "encoder.layer.1.output.dense.bias")


def test_weights_without_the_unused_pooler_are_taken(model):
    tensors = {k: v for k, v in load_file(model / WEIGHTS).items() if "pooler" not in k}
    save_file(tensors, model / WEIGHTS, {"format": "pt"})
    load_embedder(str(model))


def test_a_head_for_another_task_is_no_fault(tmp_path):
    path = Path(save_model(tmp_path / "bert", "bert"))
    config = transformers.BertConfig.from_pretrained(path)
    transformers.BertForMaskedLM(config).save_pretrained(path)
    load_embedder(str(path))


def test_a_configuration_with_fewer_layers_is_refused(model):
    change(model / "config.json", num_hidden_layers=1)
    refused(model, "encoder.layer.1.", "a layer more than config.json states")


@pytest.mark.parametrize(
    ("entry", "value"), [("hidden_size", 16), ("vocab_size", 99), ("num_hidden_layers", 3)]
)
def test_a_configuration_of_another_size_is_refused(model, entry, value):
    change(model / "config.json", **{entry: value})
    refused(model, "another")


def sharded(model: Path) -> list[Path]:
    whole = transformers.BertModel.from_pretrained(model)
    (model / WEIGHTS).unlink()
    whole.save_pretrained(model, max_shard_size="2KB")
    shards = sorted(model.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    return shards


def test_shards_are_read(model):
    rows = load_embedder(str(model)).describe(["tea"])
    sharded(model)
    assert (load_embedder(str(model)).describe(["tea"]) == rows).all()


def test_a_missing_shard_is_named(model):
    shards = sharded(model)
    shards[1].unlink()
    refused(model, f"{shards[1].name} is missing, one of {len(shards)}")


def test_a_shard_that_is_a_pointer_is_named(model):
    shards = sharded(model)
    shards[1].write_text(LFS)
    refused(model, shards[1].name, "Git LFS pointer")


def test_a_shard_that_is_another_one_is_named(model):
    shards = sharded(model)
    shutil.copy(shards[0], shards[1])
    refused(model, f"{shards[1].name} lacks", "model.safetensors.index.json names")


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": 5}'])
def test_a_damaged_index_is_named(model, content):
    sharded(model)
    (model / "model.safetensors.index.json").write_text(content)
    refused(model, "model.safetensors.index.json is damaged")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_the_model_is_refused_without_a_question(model, file, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    change(model / file, auto_map={"AutoModel": "mod.MyModel"})
    (model / "mod.py").write_text("raise SystemExit('run')")
    refused(model, "needs code of its own", file, "choose another model")


def test_a_model_type_that_nobody_knows_is_refused(model):
    change(model / "config.json", model_type="mybert")
    refused(model, "mybert", "choose another model")


def test_an_adapter_is_refused(model):
    write_json(model / "adapter_config.json", {"base_model_name_or_path": "some/model"})
    refused(model, "adapter")
    (model / "config.json").unlink()  # as where an adapter alone was saved
    refused(model, "adapter")


def test_an_encoder_decoder_is_refused(model):
    size = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    make_model("T5", vocab_size=TINY["vocab_size"], **size).save_pretrained(model)
    refused(model, "encoder-decoder")


def test_a_model_of_pictures_and_texts_is_refused(model):
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 1}
    text = small | {"vocab_size": TINY["vocab_size"], "max_position_embeddings": 16}
    pictures = small | {"image_size": 4, "patch_size": 2}
    make_model("CLIP", text_config=text, vision_config=pictures).save_pretrained(model)
    refused(model, "CLIPModel does not turn a text alone into hidden states")


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", "1_Pooling"])
def test_a_damaged_sentence_configuration_is_named(tmp_path, file):
    model = Path(save_sentence_model(tmp_path / "bert"))
    if file == "1_Pooling":
        shutil.rmtree(model / file)
        refused(model, "1_Pooling/config.json is missing")
    else:
        (model / file).write_text(LFS)
        refused(model, file, "Git LFS pointer")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(model):
    (model / WEIGHTS).chmod(0)
    refused(model, WEIGHTS, "cannot be read")
