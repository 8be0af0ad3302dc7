"""Embeddings of hashed words, and of tiny models."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from torch.nn.modules.module import register_module_forward_pre_hook

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders import transformer
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.embedders.processor import use_numpy
from pluralllm_app.survey.embedders.registry import load_embedder
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.transformer import TransformerEmbedder
from tests.support.tiny_models import NOWHERE, QUESTIONS, WORDS, save_model

CONSOLE = Console(quiet=True)


@pytest.fixture(params=["bert", "llama"])
def model(request, tmp_path) -> str:
    return save_model(tmp_path / request.param, request.param)


def test_mean_of_the_last_hidden_layer(model):
    embedder = load_embedder(model)
    rows = embedder.embed(QUESTIONS, CONSOLE, NOWHERE)
    assert rows.dtype == np.float16
    ids = [[WORDS.index(word) for word in QUESTIONS.texts[0].split()] + [0, 0, WORDS.index("yes")]]
    with torch.inference_mode():
        hidden = transformers.AutoModel.from_pretrained(model)(
            input_ids=torch.tensor(ids)
        ).last_hidden_state
    np.testing.assert_allclose(rows[0], hidden[0].mean(0), atol=1e-3)


@pytest.mark.parametrize(
    ("gpus", "device", "dtype"), [(1, "cuda:0", torch.bfloat16), (0, "cpu", torch.float32)]
)
def test_a_gpu_is_taken_where_there_is_one_and_in_bfloat16(model, monkeypatch, gpus, device, dtype):
    moved = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, to: moved.append((to, self.dtype)) or self
    )
    load_embedder(model)
    assert moved == [(torch.device(device), dtype)]


def test_rows_do_not_depend_on_their_batch(model, monkeypatch):
    together = load_embedder(model).embed(QUESTIONS, CONSOLE, NOWHERE)
    monkeypatch.setattr(transformer, "BATCH_TOKENS", {"cpu": 1, "cuda": 1})
    alone = load_embedder(model).embed(QUESTIONS, CONSOLE, NOWHERE)
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_rows_do_not_depend_on_the_order_of_questions(model, monkeypatch):
    monkeypatch.setattr(transformer, "BATCH_TOKENS", {"cpu": 12, "cuda": 12})
    embedder = load_embedder(model, "plain")
    texts = ["tea", "the sea", "do you like", "do you like tea", "sea", "you like"]
    options = [["yes", "no"], ["yes", "no", "very much"]] * 3
    questions = Questions(list("abcdef"), texts, options, [None] * 6)
    backwards = questions.select(np.arange(6)[::-1])
    rows = np.split(embedder.embed(questions, CONSOLE, NOWHERE), questions.first_rows[1:])
    again = np.split(embedder.embed(backwards, CONSOLE, NOWHERE), backwards.first_rows[1:])
    for one, other in zip(rows, again[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_devices_give_the_same_bits(model, monkeypatch):
    monkeypatch.setattr(transformer, "BATCH_TOKENS", {"cpu": 6, "cuda": 6})
    alone = load_embedder(model).embed(QUESTIONS, CONSOLE, NOWHERE)
    pair = TransformerEmbedder(model, "plain", [torch.device("cpu")] * 2)
    threads = set()
    hook = register_module_forward_pre_hook(lambda *_: threads.add(threading.current_thread()))
    with hook:
        np.testing.assert_array_equal(pair.embed(QUESTIONS, CONSOLE, NOWHERE), alone)
    assert len(threads - {threading.main_thread()}) == 2


def test_rows_do_not_depend_on_the_number_of_threads(model, monkeypatch):
    monkeypatch.setattr(transformer, "BATCH_TOKENS", {"cpu": 6, "cuda": 6})
    before = torch.get_num_threads()
    rows = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        rows.append(load_embedder(model).embed(QUESTIONS, CONSOLE, NOWHERE))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_numpy_computes_linear_layers_as_torch_does():
    torch.manual_seed(0)
    for bias in (True, False):
        layer = torch.nn.Linear(7, 5, bias=bias)
        x = torch.randn(2, 3, 7)
        expected = layer(x).detach()
        use_numpy(torch.nn.Sequential(layer))
        torch.testing.assert_close(layer(x), expected)


def test_long_prompts_are_cut_at_the_left(tmp_path):
    embedder = load_embedder(save_model(tmp_path / "bert", "bert"))
    console = Console(record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    endings = ["tea " * count + "the sea" for count in (30, 60)]
    questions = Questions(["0"], ["you"], [endings], [None])
    rows = embedder.embed(questions, console, NOWHERE)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert "2 prompts exceed 16 tokens" in console.export_text()


def test_a_description_is_embedded_as_it_stands(model):
    words = ["tea", "the", "sea"]
    rows = load_embedder(model).describe([" ".join(words), "you like tea very much", "'"])
    assert rows.dtype == np.float32
    ids = [[WORDS.index(word) for word in words]]
    with torch.inference_mode():
        hidden = transformers.AutoModel.from_pretrained(model)(
            input_ids=torch.tensor(ids)
        ).last_hidden_state
    np.testing.assert_allclose(rows[0], hidden[0].mean(0), atol=1e-5)


def test_a_long_description_is_cut_at_the_right(model):
    embedder = load_embedder(model)
    embedder.embed(QUESTIONS, CONSOLE, NOWHERE)  # whose prompts are cut at the left
    rows = embedder.describe(["you like" + " tea" * count for count in (14, 60)])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_a_description_without_a_token_is_refused(model):
    with pytest.raises(SurveyError, match="makes no token of the description ' '"):
        load_embedder(model).describe(["tea", " "])


def test_numbers_beyond_float16_are_refused(tmp_path):
    path = save_model(tmp_path / "llama", "llama")
    model = transformers.LlamaModel.from_pretrained(path)
    model.norm.weight.data.fill_(1e9)
    model.save_pretrained(path)
    embedder = load_embedder(path)
    with pytest.raises(SurveyError, match="not finite"):
        embedder.embed(QUESTIONS, CONSOLE, NOWHERE)


@pytest.mark.parametrize(
    ("name", "template", "fault"),
    [
        ("./no/such/model", None, "not a directory"),
        ("~/no/such/model", None, "not a directory"),
        ("hashing", "alpaca", "no prompt template"),
        ("anything", "alpcaa", "did you mean 'alpaca'"),
    ],
)
def test_wrong_names_are_refused(name, template, fault):
    with pytest.raises(SurveyError, match=fault):
        load_embedder(name, template)


def test_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(SurveyError, match=r"has no config\.json"):
        load_embedder(str(tmp_path))
    save_model(tmp_path, "bert")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SurveyError, match="transformers cannot load it"):
        load_embedder(str(tmp_path))


def test_a_model_the_hub_does_not_give_is_refused_at_once(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route to the hub\nand much more")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(SurveyError, match=r"'nosuch/model' \(no route to the hub\): pass"):
        load_embedder("nosuch/model")
    with pytest.raises(SurveyError, match="does not give embedder 'a b//c'"):
        load_embedder("a b//c")


def test_templates():
    assert list(TEMPLATES["plain"]("Tea?", ["Yes", "No"]))[1] == "Tea? Answer: No"
    prompt = list(TEMPLATES["alpaca"]("Tea?", ["Yes", "No"]))[1]
    sections = [line for line in prompt.splitlines() if line.startswith("###")]
    assert sections == ["### Instruction:", "### Input:", "### Response:"]
    assert "A. Yes\nB. No\n" in prompt
    assert prompt.endswith("\nB. No")


def test_hashing_halves_have_length_one():
    rows = HashingEmbedder(dim=64).embed(QUESTIONS, CONSOLE, NOWHERE).astype(np.float32)
    assert rows.shape == (4, 64)
    for half in (rows[:, :32], rows[:, 32:]):
        np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-3)
    np.testing.assert_array_equal(rows[0, :32], rows[1, :32])  # one question
    np.testing.assert_array_equal(rows[0, 32:], rows[2, 32:])  # one option text


def test_hashing_is_the_same_in_every_process():
    program = (
        "from rich.console import Console\n"
        "from pluralllm_app.survey.embedders.hashing import HashingEmbedder\n"
        "from pluralllm_app.survey.content import Questions\n"
        "questions = Questions(['0'], ['tea or sea?'], [['yes', 'no']], [None])\n"
        "rows = HashingEmbedder().embed(questions, Console(), None)\n"
        "print(hash('tea') and rows.tobytes().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
