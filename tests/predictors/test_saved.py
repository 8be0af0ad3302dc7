"""Predictors of every kind are saved and loaded whole, and nothing else is loaded."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pluralllm_app.errors import PredictorError
from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.gpo.network import GPO
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.gpo.shapes import parameter_shapes
from pluralllm_app.predictors.refined.predictor import RefinedPredictor
from pluralllm_app.predictors.refined.rows import FEATURES
from pluralllm_app.predictors.registry import BASELINES, KINDS
from pluralllm_app.predictors.saved import load_predictor, save_predictor
from pluralllm_app.preferences import PreferenceSet
from tests.support.factors import first_predictor
from tests.support.preferences import random_groups

OPTIONS = np.array([2, 3, 4] * 4)
GROUPS = random_groups(np.random.default_rng(0), 5, OPTIONS, 0.9)


def make(kind: str) -> ContextPredictor:
    if kind == "gpo":
        torch.manual_seed(0)
        return GPOPredictor(GPO(3, d_model=8, num_layers=1))
    if kind == "factors":
        return first_predictor(GROUPS[0].embeddings, OPTIONS, 3)
    if kind == "refined":
        torch.manual_seed(0)
        factors = make("factors")
        assert isinstance(factors, FactorsPredictor)
        return RefinedPredictor(factors, GPO(3 + FEATURES, d_model=8, num_layers=1))
    return BASELINES[kind].fit(GROUPS[1:])


def shares(predictor: ContextPredictor, group: PreferenceSet) -> np.ndarray:
    half = len(group) // 2
    context, target = np.arange(half), np.arange(half, len(group))
    return predictor.predict(group.select(context), group.ask(target)).shares


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_predictor_predicts_the_same(tmp_path: Path, kind: str) -> None:
    predictor = make(kind)
    save_predictor(predictor, tmp_path / "there" / "saved")
    names = {file.name for file in (tmp_path / "there" / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    loaded = load_predictor(tmp_path / "there" / "saved")
    assert loaded.kind == kind
    assert loaded.config() == predictor.config()
    for group in GROUPS[:2]:  # a new group, and one of the pool
        assert (shares(loaded, group) == shares(predictor, group)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_warns_where_answers_are_saved(tmp_path: Path, kind: str) -> None:
    save_predictor(make(kind), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "from pluralllm_app import load_predictor" in card
    pooled = kind in BASELINES and BASELINES[kind].pools_answers
    assert ("contains the answers of the groups" in card) == pooled
    assert pooled == ("groups" in json.loads((tmp_path / "config.json").read_text()))


def test_weights_have_the_bytes_they_always_had(tmp_path: Path) -> None:
    # Of a file that huggingface_hub's PyTorchModelHubMixin wrote, as the first version used it.
    model = GPO(2, d_model=4, emb_depth=1, dim_feedforward=4, nhead=2, num_layers=1)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + number)
    save_predictor(GPOPredictor(model), tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "37750b69053674cbfcc412675eda1082231173e6a677321ef6e2727ee3457eea"


def test_a_run_of_before_there_were_kinds_loads(tmp_path: Path) -> None:
    save_predictor(make("gpo"), tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("kind") == "gpo"
    file.write_text(json.dumps(config))
    assert isinstance(load_predictor(tmp_path), GPOPredictor)


def test_files_have_the_usual_rights(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_predictor(make("gpo"), tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda arrays: {f"model.{name}": a for name, a in arrays.items()}, "is missing"),
        (lambda arrays: arrays | {"extra": np.zeros(1, np.float32)}, "extra is not known"),
        (lambda arrays: dict(list(arrays.items())[1:]), "is missing"),
        (lambda arrays: {name: a[..., :1].copy() for name, a in arrays.items()}, r"\], not \["),
    ],
)
@pytest.mark.parametrize("kind", ["gpo", "consensus", "refined"])
def test_arrays_of_another_predictor_are_refused(
    tmp_path: Path, kind: str, change: Callable, fault: str
) -> None:
    save_predictor(make(kind), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(change(load_file(file)), file)
    told = f"{file} holds other weights than the config.json beside it describes: .*{fault}"
    with pytest.raises(PredictorError, match=told):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("nonsense", "is damaged"),
        ("[]", "holds no object"),
        ('{"kind": "rigde"}', "unknown kind of predictor, 'rigde': did you mean 'ridge'"),
        ('{"kind": "consensus"}', "describes no predictor of kind 'consensus': 'groups'"),
        ('{"kind": "gpo", "dim_x": 3, "width": 2}', "kind 'gpo': .*'width'"),
        ('{"dim_x": 3, "dim_y": 2}', "dim_y must be 1"),
        ('{"dim_x": 3, "num_layers": 1000000}', "arrays for num_layers = 1000000"),
        ('{"dim_x": 3, "emb_depth": 1000000}', "arrays for emb_depth = 1000000"),
        ('{"dim_x": 3, "nhead": 0}', "nhead = 0 is no whole number above 0"),
        ('{"dim_x": 1e400}', "dim_x = inf is no whole number"),
        ('{"dim_x": true}', "dim_x = True is no whole number"),
        ('{"kind": "factors", "rows": 1e400}', "kind 'factors': "),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_configs_are_refused(tmp_path: Path, content: str, fault: str) -> None:
    save_predictor(make("gpo"), tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(PredictorError, match=fault) as refusal:
        load_predictor(tmp_path)
    assert str(tmp_path / "config.json") in str(refusal.value)


@pytest.mark.parametrize("depth", [1, 3])
def test_parameters_are_known_before_a_network_is_made(depth: int) -> None:
    sizes = {"dim_x": 3, "d_model": 8, "emb_depth": depth, "dim_feedforward": 5, "nhead": 2}
    made = GPO(**sizes, num_layers=2).state_dict()
    known = parameter_shapes(len(made), **sizes, num_layers=2)
    assert known == {name: tuple(value.shape) for name, value in made.items()}


def test_a_million_layers_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_predictor(make("gpo"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 10_000}))
    empty = {f"t{number}": np.zeros(0, np.float32) for number in range(10_000)}
    save_file(empty, tmp_path / "model.safetensors")
    monkeypatch.setattr(GPO, "__init__", lambda *_, **__: pytest.fail("a network was made"))
    with pytest.raises(PredictorError, match=r"embedder\.0\.weight is missing.* and 130"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("kind", ["gpo", "refined"])
def test_numbers_of_another_kind_are_refused(tmp_path: Path, kind: str) -> None:
    save_predictor(make(kind), tmp_path)
    file = tmp_path / "model.safetensors"
    doubles = {
        name: array.astype(np.float64 if "predictor" in name else array.dtype)
        for name, array in load_file(file).items()
    }
    save_file(doubles, file)
    with pytest.raises(PredictorError, match="is of float64, not float32"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("length", ["NaN", "Infinity", "0", "-1"])
def test_a_kernel_without_a_length_is_refused(tmp_path: Path, length: str) -> None:
    save_predictor(make("factors"), tmp_path)
    file = tmp_path / "config.json"
    text = re.sub('"length": [0-9.]+', f'"length": {length}', file.read_text())
    file.write_text(text)
    with pytest.raises(PredictorError, match="is no length"):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "number", "message"),
    [
        ("factors", "variances", -1, "a variance is below 0"),
        ("gpo", "predictor.0.bias", np.nan, r"predictor\.0\.bias is not all finite"),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    tmp_path: Path, kind: str, name: str, number: float, message: str
) -> None:
    save_predictor(make(kind), tmp_path)
    file = tmp_path / "model.safetensors"
    arrays = load_file(file)
    arrays[name][0] = number
    save_file(arrays, file)
    with pytest.raises(PredictorError, match=message):
        load_predictor(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    save_predictor(make("gpo"), tmp_path)
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(PredictorError, match=f"{tmp_path / name} is damaged"):
        load_predictor(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(PredictorError, match=f"{tmp_path / name} is missing"):
        load_predictor(tmp_path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    save_predictor(make("gpo"), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(PredictorError, match="no other form is read"):
        load_predictor(str(tmp_path))


def test_a_name_is_one_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_predictor(make("ridge"), tmp_path)
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if repository != "someone/ridge":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such repository")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_predictor("someone/ridge").kind == "ridge"
    assert asked == [("someone/ridge", "config.json"), ("someone/ridge", "model.safetensors")]
    with pytest.raises(
        PredictorError, match=r"'someone/else': it is no directory, and the Hugging"
    ):
        load_predictor("someone/else")


def test_a_name_that_cannot_be_one_of_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match="it is no directory, and the Hugging Face hub"):
        load_predictor("runs/of mine/best")
    with pytest.raises(PredictorError, match=r"none/config\.json is missing"):
        load_predictor(tmp_path / "none")


SCRIPT = """
import sys
import numpy as np
from pluralllm_app import PreparedSurvey, load_predictor, save_predictor
from pluralllm_app.predictors.registry import BASELINES

survey = PreparedSurvey.open(sys.argv[1])
train = [survey.preferences(group.name) for group in survey.groups if group.role == "train"]
group = survey.preferences("Dogwood")
for kind, baseline in BASELINES.items():
    save_predictor(baseline.fit(train), f"{sys.argv[2]}/{kind}")
    predictor = load_predictor(f"{sys.argv[2]}/{kind}")
    predictor.predict(group.select(np.arange(5)), group.ask(np.arange(5, 9)))
assert "torch" not in sys.modules, "torch was imported"
"""


def test_surveys_and_baselines_need_no_torch(tiny_survey, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SCRIPT, str(tiny_survey.path), str(tmp_path)]
    output = subprocess.run(arguments, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
