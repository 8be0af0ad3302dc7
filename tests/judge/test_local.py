"""A model of transformers on this machine."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pluralllm_app.errors import SurveyError
from pluralllm_app.judge import local
from pluralllm_app.judge.answers import LETTERS_KIND
from pluralllm_app.judge.beside import Setting
from pluralllm_app.judge.local import LocalModel
from tests.support.causal_models import TEMPLATE, WORDS, save_causal_model
from tests.support.tiny_models import save_model, write_json


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_probabilities_are_those_of_the_next_token(
    setting: Setting, tmp_path: Path, kind: str, template: str | None
) -> None:
    config = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 512} if kind == "GPT2" else {}
    path = save_causal_model(tmp_path / "model", template, kind, **config)
    prompts = [prompt for _, prompt in setting.plan.prompts([None, "North"])]
    model = LocalModel(path)
    assert model.connect(prompts[0]) == LETTERS_KIND
    found = dict(model.ask(prompts))
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    alone = transformers.AutoModelForCausalLM.from_pretrained(path)
    for place, prompt in enumerate(prompts):
        text = prompt.text if template is None else f"< {prompt.text} >"
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        probabilities = alone(ids).logits[0, -1].softmax(-1)
        letters = [WORDS.index(letter) for letter in "ABC"[: len(prompt.question.options)]]
        expected = probabilities[letters].tolist()
        assert found[place].named == pytest.approx(expected, abs=1e-6), place
        assert found[place].total == 1
    assert len({answer.named for answer in found.values()}) > 5  # it heeds what it reads


def test_batches_give_what_single_prompts_give(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(save_causal_model(tmp_path / "model"))
    prompts = [prompt for _, prompt in setting.plan.prompts([None])]
    model.connect(prompts[0])
    monkeypatch.setattr(local, "BATCH_TOKENS", {"cpu": 1})
    alone = dict(model.ask(prompts))
    monkeypatch.setattr(local, "BATCH_TOKENS", {"cpu": 300})
    together = dict(model.ask(prompts))
    for place, answer in alone.items():
        assert together[place].named == pytest.approx(answer.named, abs=1e-6)


def test_identity_is_that_of_the_files(tmp_path: Path) -> None:
    one, other = (save_causal_model(tmp_path / name) for name in ("one", "other"))
    assert LocalModel(one).identity == LocalModel(other).identity
    assert LocalModel(one).name == "one"
    Path(other, "chat_template.jinja").write_text(TEMPLATE)
    assert LocalModel(one).identity != LocalModel(other).identity


def edited(name: str, **values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads((path / name).read_text())
        write_json(path / name, content | values)

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(content) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (removed("config.json"), "it has no config.json"),
        (removed("tokenizer.json"), "there is no tokenizer"),
        (removed("model.safetensors"), "there is no model.safetensors"),
        (written("model.safetensors", b"\x10\x00"), "damaged or cut off at 2 bytes"),
        (written("config.json", b"{"), "config.json is damaged"),
        (written("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n"), "LFS pointer"),
        (edited("config.json", auto_map={"AutoModel": "own.Model"}), "code of its own.*not run"),
        (edited("config.json", model_type="unheard-of"), "cannot load it by config.json"),
        (edited("config.json", num_hidden_layers=3), "weights lack 9 of"),
        (edited("config.json", vocab_size=99), "hold .* of the shape"),
        (edited("config.json", max_position_embeddings=8), "reads 8 tokens, and the longest"),
        (written("chat_template.jinja", b"{{ raise_exception('no') }}"), "template does not take"),
        (written("chat_template.jinja", b"{% if %}"), "chat template does not take a question"),
    ],
)
def test_damaged_models_are_refused_by_name(
    setting: Setting, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = Path(save_causal_model(tmp_path / "model"))
    damage(path)
    prompts = [prompt for _, prompt in setting.plan.prompts([None])]
    with pytest.raises(SurveyError, match=said) as caught:
        asked(path, prompts)
    assert str(caught.value).startswith(f"model '{path}': ")


def asked(path: Path, prompts: Any) -> Any:
    model = LocalModel(str(path))
    model.connect(prompts[0])
    return list(model.ask(prompts))


def test_its_code_is_never_run(tmp_path: Path, setting: Setting) -> None:
    path = Path(save_causal_model(tmp_path / "model"))
    (path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edited("config.json", auto_map={"AutoModelForCausalLM": "own.Model"})(path)
    with pytest.raises(SurveyError, match="code of its own"):
        LocalModel(str(path))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_language_model_is_refused(tmp_path: Path, setting: Setting) -> None:
    prompts = [prompt for _, prompt in setting.plan.prompts([None])]
    with pytest.raises(SurveyError, match=r"weights lack|no language model"):
        asked(Path(save_model(tmp_path / "bert", "bert")), prompts)
    encoder = save_causal_model(tmp_path / "encoder", kind="Bert")
    edited("config.json", is_decoder=False)(Path(encoder))
    with pytest.raises(SurveyError, match="no language model that predicts what comes next"):
        asked(Path(encoder), prompts)


def test_a_tokenizer_without_letters_is_refused(tmp_path: Path, setting: Setting) -> None:
    path = Path(save_causal_model(tmp_path / "model"))
    text = (path / "tokenizer.json").read_text().replace('"Q":', '"q":')
    (path / "tokenizer.json").write_text(text)
    prompts = [prompt for _, prompt in setting.plan.prompts([None])]
    with pytest.raises(SurveyError, match="no token of its own for the letter Q after a prompt"):
        asked(path, prompts)


def test_numbers_that_are_none_are_refused(tmp_path: Path, setting: Setting) -> None:
    path = save_causal_model(tmp_path / "model")
    model = LocalModel(path)
    prompts = [prompt for _, prompt in setting.plan.prompts([None])]
    model.connect(prompts[0])
    with torch.no_grad():
        model._model.lm_head.weight[3] = math.nan
    with pytest.raises(SurveyError, match=r"no probabilities of letters .*may be damaged"):
        list(model.ask(prompts))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match=r"model '.*/none' is not a directory: check --model"):
        LocalModel(str(tmp_path / "none"))
