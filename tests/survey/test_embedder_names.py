"""survey.json names an embedder by its name on the hub or by its content, never by a path."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import transformers
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders.names import is_same, place_of, shown
from pluralllm_app.survey.embedders.registry import load_embedder
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import write_questionnaire
from pluralllm_app.survey.site import write_site
from tests.support.tiny_models import save_sentence_model, write_json

HUB_NAME = "some-people/some-model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(save_sentence_model(tmp_path / "models" / "tiny", layers=["Normalize"]))


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds HUB_NAME, and a hub that cannot be reached; returns the model's copy."""

    def unreachable(*_, **__):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    own = tmp_path / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / "main").write_text("1234")
    copy = own / "snapshots" / "1234"
    shutil.copytree(model, copy)
    (copy / ".gitattributes").touch()
    return copy


def prepared(embedder: str, out: Path) -> PreparedSurvey:
    columns = ["question_id", "question", "option", "group", "count"]
    rows = [
        (text, text, option, group, 1)
        for text in ("do you like tea", "the sea")
        for option in ("yes", "no")
        for group in ("North", "South")
    ]
    out.mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(out / "mine.csv", index=False)
    return prepare(
        "table",
        out / "survey",
        file=out / "mine.csv",
        embedder=embedder,
        min_questions=1,
        console=Console(quiet=True),
    )


def test_a_local_model_is_named_by_its_content(model, tmp_path, monkeypatch):
    survey = prepared(str(model), tmp_path / "one")
    assert survey.embedder.startswith("sha256:")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(model, elsewhere)
    (elsewhere / "README.md").write_text("A copy.")
    monkeypatch.chdir(tmp_path)
    again = prepared("./elsewhere", tmp_path / "two")
    info = (survey.path / "survey.json").read_bytes()
    assert (again.path / "survey.json").read_bytes() == info
    for file in survey.path.rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize("what", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_the_name_changes_with_every_file_that_vectors_depend_on(model, what):
    name = load_embedder(str(model)).name
    if what == "model.safetensors":
        network = transformers.AutoModel.from_pretrained(model)
        network.encoder.layer[1].output.dense.bias.data[7] += 0.001
        network.save_pretrained(model)
    else:
        (model / what).write_text((model / what).read_text() + "\n")
    assert load_embedder(str(model)).name != name


def test_a_model_of_the_hub_has_its_name_and_its_content(hub, model, tmp_path):
    survey = prepared(HUB_NAME, tmp_path / "survey")
    local = prepared(str(model), tmp_path / "local")
    assert survey.embedder == f"{HUB_NAME} {local.embedder}"
    assert is_same(survey.embedder, local.embedder)
    np.testing.assert_array_equal(survey.embeddings, local.embeddings)


def test_a_copy_of_a_part_is_refused(hub):
    # What earlier versions fetched had no modules.json, so that its pooling would be the default.
    (hub / "modules.json").unlink()
    (hub / ".gitattributes").unlink()
    with pytest.raises(SurveyError, match=f"is not whole: run `hf download {HUB_NAME}`"):
        load_embedder(HUB_NAME)


@pytest.mark.parametrize("name", ["no/model", HUB_NAME])
def test_what_stands_between_here_and_the_hub_is_named(hub, monkeypatch, name):
    (hub / ".gitattributes").unlink()
    for variable in ("https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    asked = r"\(no route to the hub; asked through the proxy HTTPS_PROXY=http://127.0.0.1:9\)"
    with pytest.raises(SurveyError, match=asked):
        load_embedder(name)


def test_python_without_docstrings_is_not_blamed_on_the_model(model):
    code = (
        f"from pluralllm_app.survey.embedders.registry import load_embedder as f; f({str(model)!r})"
    )
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert "PYTHONOPTIMIZE=2 or -OO: unset it" in done.stderr


def test_what_takes_seconds_is_said_before(model, tmp_path, monkeypatch):
    console = Console(record=True, width=200, file=io.StringIO())

    def loading(*_: object) -> None:
        raise SurveyError(console.export_text())

    monkeypatch.setattr("pluralllm_app.survey.prepare.load_embedder", loading)
    with pytest.raises(SurveyError, match=r"^Loading the embedder \.\.\.\s*$"):
        prepare("demo", tmp_path / "demo", embedder=str(model), console=console)


def test_a_questionnaire_says_the_same(model, tmp_path):
    survey = prepared(str(model), tmp_path / "survey")
    assert write_questionnaire(survey, tmp_path / "questions").embedder == survey.embedder


@pytest.mark.parametrize("path", ["/home/me/models/tiny", "./models/tiny", "~/tiny"])
def test_a_survey_that_names_a_path_opens_and_does_not_pass_it_on(model, tmp_path, path):
    survey = prepared(str(model), tmp_path / "survey")
    file = survey.path / "survey.json"
    write_json(file, json.loads(file.read_text()) | {"embedder": path})
    opened = PreparedSurvey.open(survey.path)
    opened.verify()
    assert opened.embedder == "a local model"
    for copy in (
        write_questionnaire(opened, tmp_path / "questions"),
        write_site(opened, "North", tmp_path / "site").survey,
    ):
        assert path not in (copy.path / "survey.json").read_text()


HERE, OTHER = "sha256:" + 64 * "0", "sha256:" + 64 * "1"


@pytest.mark.parametrize(
    ("stated", "found", "same"),
    [
        ("hashing", "hashing", True),
        ("hashing", HERE, False),
        (HERE, HERE, True),
        (HERE, OTHER, False),
        (HERE, f"org/model {HERE}", True),
        (f"org/model {HERE}", f"org/model {OTHER}", False),  # it was changed on the hub
        (f"org/model {HERE}", f"org/copy {HERE}", True),
        ("org/model", f"org/model {HERE}", True),
        ("org/model", f"org/other {HERE}", False),
        ("a local model", HERE, False),
    ],
)
def test_embedders_are_compared_by_what_is_known(stated, found, same):
    assert is_same(stated, found) is is_same(found, stated) is same


def test_a_name_says_where_the_model_can_be_had():
    names = ("hashing", "org/model", f"org/model {HERE}", HERE, "a local model")
    assert [place_of(name) for name in names] == ["hashing", "org/model", "org/model", None, None]
    assert shown(f"org/model {HERE}") == "org/model sha256:000000000000"
    assert [shown(name) for name in ("hashing", "org/model")] == ["hashing", "org/model"]
