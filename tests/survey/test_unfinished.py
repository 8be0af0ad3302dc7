"""An interrupted `prepare` goes on where it stopped, to the same bits."""

from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from rich.console import Console

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.embedders import transformer, unfinished
from pluralllm_app.survey.embedders.unfinished import UnfinishedRows
from pluralllm_app.survey.prepare import prepare
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.tiny_models import save_model

QUESTIONS = ["do you like tea", "the sea", "do you like the sea", "tea", "you like tea", "sea"]


@pytest.fixture(autouse=True)
def every_batch_is_kept(monkeypatch):
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    monkeypatch.setattr(transformer, "BATCH_TOKENS", {"cpu": 12, "cuda": 12})
    # The tiny tokenizer does not know the words of templates.
    monkeypatch.setattr(transformer, "MOST_UNKNOWN", (1.0, 1.0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that batches begin one after another
    yield
    torch.set_num_threads(threads)


def run(directory: Path, model: str, template: str = "plain", texts: list[str] = QUESTIONS):
    columns = ["question_id", "question", "option", "group", "count"]
    rows = [
        (f"q{number}", text, option, group, 1 + number)
        for number, text in enumerate(texts)
        for group in ("North", "South")
        for option in ("yes", "no", "very much")
    ]
    directory.mkdir(exist_ok=True)
    file = directory / "mine.csv"
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
    return prepare(
        "table",
        directory / "survey",
        file=file,
        embedder=model,
        template=template,
        descriptions="none",  # which would be embedded first
        min_questions=1,
        console=Console(quiet=True),
    )


def interrupt(monkeypatch, after: int) -> list[int]:
    """Interrupt the embedding after so many batches; the list returned gets the size of each."""
    batches: list[int] = []

    def interrupted(forward):
        @wraps(forward)
        def watched(self, input_ids, **arguments):
            if input_ids.numel() == 1:  # with which a model is tried when it is loaded
                return forward(self, input_ids=input_ids, **arguments)
            if len(batches) == after:
                raise KeyboardInterrupt
            batches.append(len(input_ids))
            return forward(self, input_ids=input_ids, **arguments)

        return watched

    for kind in (transformers.BertModel, transformers.LlamaModel):
        monkeypatch.setattr(kind, "forward", interrupted(kind.forward))
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_interrupted_twice_gives_the_same_bits(tmp_path, monkeypatch, kind):
    model = save_model(tmp_path / kind, kind)
    whole = run(tmp_path / "whole", model)
    done = []
    for after in (2, 1):
        with monkeypatch.context() as patch:
            done.append(interrupt(patch, after))
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "parts", model)
    assert [len(batches) for batches in done] == [2, 1]
    kept = tmp_path / "parts" / ".survey.unfinished"
    assert len(list(kept.iterdir())) == 3
    last = interrupt(monkeypatch, 1000)
    survey = run(tmp_path / "parts", model)
    assert sum(last) + sum(map(sum, done)) == (6 if kind == "llama" else 18)
    assert np.array_equal(survey.embeddings, whole.embeddings)
    assert survey.fingerprint == whole.fingerprint
    assert not kept.exists()
    PreparedSurvey.open(tmp_path / "parts" / "survey").verify()


def test_rows_of_something_else_are_refused(tmp_path, monkeypatch):
    model = save_model(tmp_path / "llama", "llama")
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", model)
    refused = pytest.raises(SurveyError, match="unfinished embedding of another model")
    with refused:
        run(tmp_path / "parts", model, template="alpaca")
    with refused:
        run(tmp_path / "parts", model, texts=[*QUESTIONS[:5], "tea sea"])
    trained = transformers.LlamaModel.from_pretrained(model)
    trained.norm.weight.data.mul_(2)
    trained.save_pretrained(model)
    with refused:
        run(tmp_path / "parts", model)


def test_a_damaged_file_is_named(tmp_path):
    kept = UnfinishedRows(tmp_path / "kept", "digest")
    kept.keep(np.ones((3, 4), np.float16))
    kept.keep(np.ones((5, 4), np.float16))
    files = sorted(tmp_path.glob("kept/*"))
    assert [file.name for file in files] == [f"{row:012d}.safetensors" for row in (0, 3)]
    assert UnfinishedRows(tmp_path / "kept", "digest").resume(np.empty((9, 4), np.float16)) == 5
    files[1].write_bytes(files[1].read_bytes()[:50])
    with pytest.raises(SurveyError, match=r"000000000003\.safetensors cannot be read"):
        UnfinishedRows(tmp_path / "kept", "digest").resume(np.empty((9, 4), np.float16))


def test_nothing_is_kept_of_what_takes_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "SECONDS", 30.0)
    UnfinishedRows(tmp_path / "kept", "digest").keep(np.ones((3, 4), np.float16))
    assert list(tmp_path.iterdir()) == []
