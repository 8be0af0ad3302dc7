"""Pooling, scale, prompts and limits as a model's own sentence-transformers files state them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from safetensors.torch import load_file, save_file

from pluralllm_app.core.segments import Floats
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.pooling import pool
from pluralllm_app.survey.embedders.registry import load_embedder
from tests.support.tiny_models import (
    NOWHERE,
    PACKAGE,
    QUESTIONS,
    TINY,
    WORDS,
    make_model,
    save_dense,
    save_model,
    save_sentence_model,
    write_json,
)

STATES = torch.tensor([[1.0, 0.0], [2.0, 8.0], [6.0, 4.0]])
SETTINGS = "config_sentence_transformers"
PROMPTS = {"prompts": {"query": "the sea: "}, "default_prompt_name": "query"}


def hidden(model: str, words: str) -> Floats:
    """The hidden states of the words between "do" and "much", by transformers itself."""
    ids = [WORDS.index(word) for word in ["do", *words.split(), "much"]]
    with torch.inference_mode():
        network = transformers.AutoModel.from_pretrained(model)
        return network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


def describe(model: str, *texts: str) -> Floats:
    return load_embedder(model).describe(texts)


def said(model: str, questions: Questions = QUESTIONS) -> str:
    console = Console(record=True, width=300, file=open("/dev/null", "w"))  # noqa: SIM115
    load_embedder(model).embed(questions, console, NOWHERE)
    return console.export_text()


@pytest.mark.parametrize(
    ("pooling", "skipped", "expected"),
    [
        ("cls", 0, [1, 0]),
        ("cls", 1, [2, 8]),
        ("lasttoken", 0, [6, 4]),
        ("max", 0, [6, 8]),
        ("mean", 0, [3, 4]),
        ("mean", 1, [4, 6]),
        ("mean_sqrt_len_tokens", 0, [9 / 3**0.5, 12 / 3**0.5]),
        ("weightedmean", 0, [(1 + 4 + 18) / 6, (16 + 12) / 6]),
        ("weightedmean", 1, [(4 + 18) / 5, (16 + 12) / 5]),
    ],
)
def test_poolings_by_hand(pooling, skipped, expected):
    np.testing.assert_allclose(pool(STATES, [pooling], skipped), expected, rtol=1e-6)


def test_several_poolings_are_joined():
    np.testing.assert_allclose(pool(STATES, ["cls", "max"]), [1, 0, 6, 8])


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ["cls"]),
        ({"pooling_mode": "lasttoken"}, ["lasttoken"]),
        ({"pooling_mode": ["max", "cls"]}, ["max", "cls"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, ["max", "mean"]),
        ({}, ["mean"]),
    ],
)
def test_the_stated_pooling_is_used(tmp_path, kind, stated, expected):
    model = save_sentence_model(tmp_path / kind, kind, stated)
    by_hand = pool(torch.from_numpy(hidden(model, "you like tea")), expected)
    np.testing.assert_allclose(describe(model, "you like tea")[0], by_hand, atol=1e-6)
    rows = load_embedder(model).embed(QUESTIONS, Console(quiet=True), NOWHERE)
    texts = ["do you like tea [UNK] yes", "sea [UNK] no"]  # "Answer:" is no word of WORDS
    for row, text in zip(rows[[0, 3]], texts, strict=True):
        text = text.replace("[UNK]", "[UNK] [UNK]")
        by_hand = pool(torch.from_numpy(hidden(model, text)), expected)
        np.testing.assert_allclose(row, by_hand, atol=2e-3)


def test_vectors_are_scaled_where_the_model_says_so(tmp_path):
    plain = describe(save_sentence_model(tmp_path / "plain"), "you like tea")[0]
    scaled = describe(
        save_sentence_model(tmp_path / "scaled", layers=["Normalize"]), "you like tea"
    )
    np.testing.assert_allclose(scaled[0], plain / np.linalg.norm(plain), atol=1e-6)


def test_dense_layers_are_applied_in_order(tmp_path):
    model = save_sentence_model(tmp_path / "bert", layers=["Dropout", "Dense", "Normalize"])
    tensors = load_file(tmp_path / "bert" / "3_Dense" / "model.safetensors")
    mean = torch.from_numpy(hidden(model, "you like tea")).mean(0)
    dense = torch.tanh(tensors["linear.weight"] @ mean + tensors["linear.bias"])
    row = describe(model, "you like tea")[0]
    np.testing.assert_allclose(row, dense / dense.norm(), atol=1e-6)
    assert "a dense layer (Tanh), scaled to length 1" in said(model)


def test_the_rest_of_a_vector_is_left_out_where_the_model_says_so(tmp_path):
    whole = describe(save_sentence_model(tmp_path / "whole", layers=["Normalize"]), "tea")
    stated = {SETTINGS: {"truncate_dim": 3}}
    part = describe(save_sentence_model(tmp_path / "part", layers=["Normalize"], **stated), "tea")
    np.testing.assert_allclose(part, whole[:, :3], atol=1e-6)


def test_the_default_prompt_is_put_before_every_text(tmp_path):
    model = save_sentence_model(tmp_path / "bert", **{SETTINGS: PROMPTS})
    row = describe(model, "you like tea")[0]
    np.testing.assert_allclose(row, hidden(model, "the sea [UNK] you like tea").mean(0), atol=1e-6)
    assert "every text after the prompt 'the sea: '" in said(model)


def test_a_prompt_is_left_out_of_the_pooling_where_the_model_says_so(tmp_path):
    model = save_sentence_model(
        tmp_path / "bert", pooling={"include_prompt": False}, **{SETTINGS: PROMPTS}
    )
    row = describe(model, "you like tea")[0]
    states = hidden(model, "the sea [UNK] you like tea")
    np.testing.assert_allclose(row, states[4:].mean(0), atol=1e-6)


def test_prompts_without_a_default_are_named_and_not_used(tmp_path):
    prompts = {"prompts": {"query": "the sea: ", "document": ""}, "default_prompt_name": None}
    model = save_sentence_model(tmp_path / "bert", **{SETTINGS: prompts})
    row = describe(model, "you like tea")[0]
    np.testing.assert_allclose(row, hidden(model, "you like tea").mean(0), atol=1e-6)
    assert "without its prompts (query), none of which is its default" in said(model)


def test_the_stated_number_of_tokens_is_kept_and_the_prompt_with_them(tmp_path):
    model = save_sentence_model(
        tmp_path / "bert", sentence_bert_config={"max_seq_length": 8}, **{SETTINGS: PROMPTS}
    )
    questions = Questions(["0"], ["you like tea"], [["yes", "no"]], [None])
    rows = load_embedder(model).embed(questions, Console(quiet=True), NOWHERE)
    # do the sea : | you like tea Answer | : yes much
    kept = hidden(model, "the sea [UNK] [UNK] [UNK] yes").mean(0)
    np.testing.assert_allclose(rows[0], kept, atol=2e-3)
    assert "2 prompts exceed 8 tokens and were cut at the left" in said(model, questions)
    row = describe(model, "you like tea very much")[0]
    cut = hidden(model, "the sea [UNK] you like tea").mean(0)
    np.testing.assert_allclose(row, cut, atol=1e-6)


def test_lower_case_where_the_model_says_so(tmp_path):
    model = save_sentence_model(tmp_path / "bert", sentence_bert_config={"do_lower_case": True})
    row = describe(model, "You LIKE tea")[0]
    np.testing.assert_allclose(row, hidden(model, "you like tea").mean(0), atol=1e-6)


def test_a_transformer_in_a_directory_of_its_own_is_read(tmp_path):
    model = tmp_path / "bert"
    row = describe(save_sentence_model(model), "you like tea")
    (model / "0_Transformer").mkdir()
    for file in list(model.iterdir()):
        if file.is_file() and file.name != "modules.json":
            file.rename(model / "0_Transformer" / file.name)
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(model / "modules.json", modules)
    np.testing.assert_array_equal(describe(str(model), "you like tea"), row)


def test_a_model_that_states_nothing_says_so(tmp_path):
    model = save_sentence_model(tmp_path / "bert")
    (tmp_path / "bert" / "modules.json").unlink()
    assert "mean pooling, the default for a model that states none" in said(model)


def test_positions_of_padding_are_no_tokens(tmp_path):
    # Models of RoBERTa's kin count positions from 2 on, where padding is token 1.
    save_model(tmp_path, "bert")
    make_model("XLMRoberta", **TINY, pad_token_id=1).save_pretrained(tmp_path)
    questions = Questions(["0"], ["tea " * 30], [["yes", "no"]], [None])
    assert "2 prompts exceed 14 tokens" in said(str(tmp_path), questions)


def test_a_tokenizer_that_knows_much_less_than_the_weights_is_warned_of(tmp_path):
    save_model(tmp_path, "bert")
    assert "and its weights know" not in said(str(tmp_path))
    make_model("Bert", **TINY | {"vocab_size": 20}).save_pretrained(tmp_path)
    assert "tokenizer has 13 tokens, and its weights know 20" in said(str(tmp_path))


def test_words_that_the_tokenizer_does_not_know_are_counted(tmp_path):
    model = save_sentence_model(tmp_path / "bert")
    assert "does not know 38% of the tokens" in said(model)  # "Answer" and ":" are 8 of 21
    known = Questions(["0"], ["do you like tea very very very very much"], [["yes", "no"]], [None])
    assert "does not know" not in said(model, known)


def test_a_tokenizer_that_does_not_know_most_words_is_refused(tmp_path):
    model = save_sentence_model(tmp_path / "bert")
    foreign = Questions(["0"], ["Magst du Tee?"], [["yes", "no"]], [None])
    with pytest.raises(SurveyError, match=r"does not know 86% of the tokens.*copy the model's own"):
        said(model, foreign)  # of seven in each prompt, "yes" and "no" are known


def modules(model: str, *types: str) -> None:
    listed = [
        {"path": f"{number}_X" if number else "", "type": t} for number, t in enumerate(types)
    ]
    write_json(Path(model) / "modules.json", listed)


@pytest.mark.parametrize(
    ("types", "fault"),
    [
        (["mine.Transformer", f"{PACKAGE}.models.Pooling"], "code of the model's own"),
        ([f"{PACKAGE}.models.Transformer"], "begins with Transformer"),
        ([f"{PACKAGE}.models.StaticEmbedding"], "StaticEmbedding is not supported"),
        ([f"{PACKAGE}.models.{name}" for name in ("Transformer", "CNN")], "CNN is not supported"),
        ([f"{PACKAGE}.models.{name}" for name in ("Transformer", "Pooling", "Pooling")], "twice"),
    ],
)
def test_other_modules_are_refused_by_name(tmp_path, types, fault):
    model = save_sentence_model(tmp_path / "bert")
    modules(model, *types)
    with pytest.raises(SurveyError, match=fault):
        load_embedder(model)


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "'median', known are cls, max"),
        ("2_Dense/config.json", {"activation_function": "mine.Act"}, "activation 'mine.Act'"),
        ("2_Dense/config.json", {"use_residual": True}, "with a residual"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "token_embeddings"),
        ("sentence_bert_config.json", {"max_seq_length": "many"}, "max_seq_length 'many'"),
        (f"{SETTINGS}.json", {"default_prompt_name": "query"}, "names the prompt 'query'"),
        (f"{SETTINGS}.json", {"model_type": "SparseEncoder"}, "it is a SparseEncoder"),
        (f"{SETTINGS}.json", {"truncate_dim": 0}, "truncate_dim 0"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "another use"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "get_text_features"}}},
            "another use",
        ),
        ("modules.json", {}, "begins with"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, file, content, fault):
    model = save_sentence_model(tmp_path / "bert", layers=["Dense"])
    write_json(Path(model) / file, content)
    with pytest.raises(SurveyError, match=fault):
        load_embedder(model)


def test_dense_weights_of_another_width_are_refused(tmp_path):
    model = save_sentence_model(tmp_path / "bert", layers=["Dense"])
    place = Path(model) / "2_Dense"
    save_dense(place, wide=9)
    with pytest.raises(
        SurveyError, match=r"takes vectors of 9 numbers, and those before it have 8"
    ):
        load_embedder(model)
    save_file({"other": torch.ones(2)}, place / "model.safetensors")
    with pytest.raises(SurveyError, match="does not hold one linear layer"):
        load_embedder(model)
