"""Tasks of lm-evaluation-harness, run by it."""

import json
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.judge import harness_metric
from pluralllm_app.judge.beside import Setting, prepare_setting
from pluralllm_app.judge.harness import write_tasks
from pluralllm_app.judge.kept import open_answers
from pluralllm_app.judge.local import LocalModel
from pluralllm_app.judge.run import judge_model
from pluralllm_app.judge.verdict import Verdict
from pluralllm_app.scoring.metrics import alignment
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.judge.odd_surveys import ordinal_survey, survey_of_templates
from tests.support.causal_models import TEMPLATE, save_causal_model

TASK, PERSONA = "pluralllm_changes", "pluralllm_changes_persona"


def test_what_is_written(setting: Setting, tmp_path: Path) -> None:
    out = tmp_path / "tasks"
    assert write_tasks(setting.plan, out) == [TASK, PERSONA]
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "metric.py",
        *(f"{task}.{ending}" for task in (TASK, PERSONA) for ending in ("jsonl", "yaml")),
    ]
    documents = [json.loads(line) for line in (out / f"{TASK}.jsonl").read_text().splitlines()]
    assert len(documents) == 30
    assert [truth["group"] for truth in documents[0]["groups"]] == ["north", "south"]
    assert documents[0]["groups"][0]["shares"] == pytest.approx([0.26, 0.74], abs=1e-6)
    as_group = (out / f"{PERSONA}.jsonl").read_text().splitlines()
    assert len(as_group) == 60
    assert len(json.loads(as_group[0])["groups"]) == 1
    readme = (out / "README.md").read_text()
    assert "hold these groups' answers" in readme
    assert "Licence of the data: none" in readme
    with pytest.raises(UserError, match="is there already: give another --export"):
        write_tasks(setting.plan, out)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_tasks(setting.plan, tmp_path / "file" / "tasks")


@pytest.mark.parametrize("metric", ["jensen-shannon", "wasserstein"])
def test_its_metric_is_the_surveys(metric: str) -> None:
    rng = np.random.default_rng(0)
    options = np.array([2, 5, 3])
    shares, truth = (
        np.concatenate([rng.dirichlet(np.ones(count)) for count in options]) for _ in range(2)
    )
    truth[0], truth[1] = 0, 1
    values = np.array([1, 2, 5, 1, 3, 2, 9, 0, 7, 3.5])
    expected = alignment(metric, shares, truth, options, values)
    items = []
    for number, (start, count) in enumerate(zip([0, 2, 7], options, strict=True)):
        flat = slice(start, start + count)
        for turn in range(count):
            document = {
                "question": str(number),
                "turn": turn,
                "metric": metric,
                "groups": [
                    {
                        "group": "a",
                        "shares": truth[flat].tolist(),
                        "values": values[flat].tolist(),
                    }
                ],
            }
            logs = np.log(np.roll(shares[flat], -turn)) - 3  # a part of the probability
            results = harness_metric.process_results(document, [(log, False) for log in logs])
            assert set(results) == {"alignment_a", "alignment", "worst", "fairness_index"}
            items.append(results["alignment_a"])
    assert harness_metric.alignment(items) == pytest.approx(float(expected.mean()), abs=1e-12)


def test_ordinal_values_are_written(tmp_path: Path) -> None:
    plan = prepare_setting(ordinal_survey(tmp_path / "survey"), [], None, most=9, seed=0).plan
    write_tasks(plan, tmp_path / "tasks")
    lines = (tmp_path / "tasks" / "pluralllm_ordinal.jsonl").read_text().splitlines()
    items = [
        harness_metric.process_results(json.loads(line), [(-3.0, False)] * 3)["alignment"]
        for line in lines
    ]
    assert len(items) == 3
    # A third moves by 1 and a third by 4, where all of it could move by 4.
    assert harness_metric.alignment(items) == pytest.approx(1 - (1 / 3 + 4 / 3) / 4)


def test_probabilities_that_are_none_are_refused() -> None:
    document = {"question": "7", "turn": 0, "metric": "jensen-shannon", "groups": []}
    for logs in ([float("nan"), 0.0], [-float("inf")] * 2):
        with pytest.raises(ValueError, match="question 7: the model gives no probabilities"):
            harness_metric.process_results(document, [(log, False) for log in logs])


@pytest.mark.slow
def test_texts_that_look_like_templates_reach_the_model_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[dev]'")
    from lm_eval.tasks import TaskManager, get_task_dict

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    survey = survey_of_templates(tmp_path / "survey")
    plan = prepare_setting(survey, [], None, most=9, seed=0).plan
    names = write_tasks(plan, tmp_path / "tasks")
    tasks = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    found = get_task_dict(names, tasks)
    for name, who in zip(names, ([None], list(plan.groups)), strict=True):
        prompts = [prompt for _, prompt in plan.prompts(who)]
        documents = list(found[name].test_docs())
        assert [found[name].doc_to_text(each) for each in documents] == [
            prompt.text for prompt in prompts
        ]
        assert [found[name].doc_to_choice(each) for each in documents] == [
            list("ABC"[: len(prompt.question.options)]) for prompt in prompts
        ]
        assert {"alignment", "alignment_alignment", "alignment_g"} < set(found[name].aggregation())


def verdict_of(path: str, setting: Setting, cache: Path) -> Verdict:
    with open_answers(cache) as kept:
        judged = judge_model(LocalModel(path), setting, "both", kept, lambda done, total: None)
    return judged.verdict


@pytest.mark.slow
@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "chat"])
def test_the_harness_gives_the_numbers_of_judge(
    survey: PreparedSurvey,
    tmp_path: Path,
    cache: Path,
    template: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm_eval = pytest.importorskip(
        "lm_eval", reason="lm-eval is not installed: pip install '.[dev]'"
    )
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    setting = prepare_setting(survey, [], None, most=6, seed=0)
    model = save_causal_model(tmp_path / "model", template)
    write_tasks(setting.plan, tmp_path / "tasks")
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},dtype=float32",
        device="cpu",
        batch_size=8,
        tasks=[TASK, PERSONA],
        # Its own tasks are thousands of files to read.
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        apply_chat_template=template is not None,
    )["results"]
    verdict = verdict_of(model, setting, cache)
    for task, method in ((TASK, "model"), (PERSONA, "model-as-group")):
        summary = verdict.summary(method)
        found = {key.partition(",")[0]: value for key, value in results[task].items()}
        assert found["alignment"] == pytest.approx(summary.mean, abs=1e-5)
        assert found["worst"] == pytest.approx(summary.worst, abs=1e-5)
        assert found["fairness_index"] == pytest.approx(summary.fi, abs=1e-5)
        for group, slug in (("North", "north"), ("South", "south")):
            own = verdict.scores[group][method].alignment
            assert found[f"alignment_{slug}"] == pytest.approx(own, abs=1e-5)
