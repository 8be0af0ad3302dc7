import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.report.notices import notices
from pluralllm_app.report.sources import Sources, read_sources
from tests.support.runs import ROSTER, SURVEY, write_run


def titles(sources: Sources) -> list[tuple[str, list[int]]]:
    return [(own.title, [run.seed for run in own.result.runs]) for own in sources.methods]


def test_a_comparison_is_its_methods_over_its_seeds(comparison: Path) -> None:
    sources = read_sources([comparison])
    assert titles(sources) == [
        ("Federated GPO", [0, 1]),
        ("Centralized GPO, equal steps", [0, 1]),
        ("Uniform", [0, 1]),
        ("Consensus", [0, 1]),
    ]
    assert notices(sources) == []
    assert len(sources.runs) == 8


def test_runs_that_differ_in_their_seeds_alone_are_one_method(tmp_path: Path) -> None:
    settings = {"rounds": 1, "strategy": "fedavg"}
    paths = [
        write_run(tmp_path / "a", settings=settings | {"seed": 0}),
        write_run(tmp_path / "prox", settings=settings | {"strategy": "fedprox"}),
        write_run(tmp_path / "b", seed=1, settings=settings | {"seed": 1}),
    ]
    assert titles(read_sources(paths)) == [
        ("Federated GPO", [0, 1]),
        ("Federated GPO, fedprox", [0]),
    ]


def test_a_federation_is_called_after_what_it_learned(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / "a", settings={"predictor": "factors", "prior": "none"}),
        write_run(tmp_path / "b", settings={"predictor": "gpo", "prior": "factors"}),
    ]
    assert titles(read_sources(paths)) == [
        ("Federated factors, sums in the clear", [0]),
        ("GPO on factors, sums in the clear", [0]),
    ]


def test_methods_of_one_title_are_told_apart_by_directory_then_number(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / "1" / "a"),
        write_run(tmp_path / "2" / "a"),
        write_run(tmp_path / "b"),
    ]
    assert [title for title, _ in titles(read_sources(paths))] == [
        "Federated GPO · a · no. 1",
        "Federated GPO · a · no. 2",
        "Federated GPO · b",
    ]


def test_a_path_given_twice_counts_once(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    assert len(read_sources([path, path]).runs) == 1


@pytest.mark.parametrize(
    ("fields", "rounds", "notice"),
    [
        ({}, None, "One seed: there are no intervals"),
        ({"status": "running"}, None, "a is not finished (or was cut off) after round 1"),
        ({"status": "failed", "error": "quorum <lost>"}, None, "after round 1: quorum <lost>"),
        ({"status": "stopped"}, [], "was stopped before its first round"),
        ({"status": "running"}, [], "a has no evaluation"),
        (
            {"roster": ROSTER[:1]},
            None,
            "no evaluation groups",
        ),
        (
            {"settings": {"noise": "respondents", "epsilon": 2.0}},
            None,
            "Answers of train groups have noise in a (epsilon 2): these groups are scored on",
        ),
    ],
)
def test_what_a_reader_must_know_is_said(
    tmp_path: Path, fields: dict[str, Any], rounds: list[Any] | None, notice: str
) -> None:
    sources = read_sources([write_run(tmp_path / "a", rounds=rounds, **fields)])
    assert any(notice in text for text in notices(sources)), notices(sources)


def test_other_contexts_are_said(tmp_path: Path) -> None:
    settings = {"evaluation-context": 3, "evaluation-seed": 1}
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", settings=settings)]
    text = " ".join(notices(read_sources(paths)))
    assert "differ in evaluation-context (3, None)" in text
    assert "differ in evaluation-seed" in text


def test_missing_cells_are_named(comparison: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(comparison, copy)
    shutil.rmtree(copy / "cells" / "consensus")
    file = copy / "cells" / "federated" / "seed-1" / "run.json"
    file.write_text(file.read_text().replace('"status": "completed"', '"status": "failed"'))
    sources = read_sources([copy])
    assert dict(titles(sources))["Consensus (0 of 2 seeds)"] == []
    (missing, single) = notices(sources)
    assert "Federated GPO, seed 1 (failed)" in missing
    assert "Consensus, seed 0 (not begun); Consensus, seed 1 (not begun)" in missing
    assert single == "One seed only, so no interval: Federated GPO (1 of 2 seeds)."


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist"):
        read_sources([tmp_path / "missing"])
    with pytest.raises(UserError, match=r"has neither run\.json nor comparison\.json"):
        read_sources([tmp_path])


def test_runs_of_different_surveys_are_refused(tmp_path: Path) -> None:
    other = write_run(tmp_path / "b", survey=replace(SURVEY, name="other", fingerprint="f1"))
    with pytest.raises(UserError, match=r"different surveys.*a \(by hand\).*b \(other\)"):
        read_sources([write_run(tmp_path / "a"), other])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.json", "{", r"run\.json is damaged"),
        ("run.json", "[1]", r"run\.json is damaged"),
        (
            "run.json",
            '{"method": "federated"}',
            r"run\.json is damaged: .* missing required field `started`",
        ),
        ("rounds.jsonl", "{\n", r"rounds\.jsonl is damaged"),
        (
            "rounds.jsonl",
            '{"round": 1, "train": null, "seconds": 1, "evaluation": {"roles": {}}}\n',
            r"rounds\.jsonl is damaged in line 1: .* `groups` - at `\$\.evaluation`",
        ),
        ("comparison.json", "{", r"comparison\.json is damaged"),
        ("comparison.json", '{"seeds": [0]}', r"comparison\.json is damaged: .* `identity`"),
        ("comparison.json", "3", r"comparison\.json .*is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    path = write_run(tmp_path / "a")
    (path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        read_sources([path])
