"""What a reader of a report must know before its numbers."""

from typing import Any

from pluralllm_app.experiments.results import Comparison, Run
from pluralllm_app.records.reader import read_run
from pluralllm_app.report.sources import SCORING, Sources

_SAME = "Which of them is better cannot be told exactly: run them again with the same value."


def notices(sources: Sources) -> list[str]:
    """What is missing, unfinished or not comparable, a sentence or two each."""
    found = [_unfinished(run) for run in sources.runs if not run.finished]
    for comparison in sources.comparisons:
        found += _unfinished_cells(comparison)
    for run in sources.runs:
        if not run.evaluated:
            found.append(f"{run.path} has no evaluation: it has no scores here.")
    if summed := [
        run.path.name for run in sources.runs if run.info.settings.get("scores") == "mean"
    ]:
        found.append(
            f"Scores of {', '.join(summed)} were summed securely: they have means and fairness "
            "over groups, while the worst group and single groups' scores are not known."
        )
    if noised := [run for run in sources.runs if run.info.settings.get("noise") == "respondents"]:
        names = ", ".join(
            f"{run.path.name} (epsilon {run.info.settings['epsilon']:g})" for run in noised
        )
        found.append(
            f"Answers of train groups have noise in {names}: these groups are scored on noised "
            "answers, which no predictor can know; groups never trained on, on their true ones."
        )
    trained = [method for method in sources.methods if method.result.runs]
    if trained and all(len(method.result.runs) == 1 for method in trained):
        found.append("One seed: there are no intervals, and differences may be chance.")
    elif single := [method.title for method in trained if len(method.result.runs) == 1]:
        found.append(f"One seed only, so no interval: {', '.join(single)}.")
    if sources.roster and not any(group.role == "evaluation" for group in sources.roster):
        found.append(
            "The survey has no evaluation groups: there are no scores for groups never trained on."
        )
    for key in SCORING[1:]:
        values = {run.info.settings.get(key) for run in sources.runs}
        if len(values) > 1:
            found.append(
                f"The runs differ in {key} ({', '.join(sorted(map(str, values)))}): they are "
                f"scored on different questions, or from different answers as context. {_SAME}"
            )
    by_seed: dict[int, set[Any]] = {}
    for run in sources.runs:
        by_seed.setdefault(run.seed, set()).add(run.info.settings.get("evaluation-seed"))
    if any(len(seeds) > 1 for seeds in by_seed.values()):
        found.append(
            "Runs of one seed differ in evaluation-seed: the answers that they are given as "
            f"context were drawn differently. {_SAME}"
        )
    return found


def _unfinished(run: Run) -> str:
    text = {
        "running": "is not finished (or was cut off)",
        "failed": "failed",
        "stopped": "was stopped",
    }[run.info.status]
    last = f" after round {run.rounds[-1].round}" if run.rounds else " before its first round"
    cause = f": {run.info.error}" if run.info.error else ""
    return f"{run.path} {text}{last}{cause}. What is shown of it is where it stood."


def _unfinished_cells(comparison: Comparison) -> list[str]:
    missing = []
    for method in comparison.methods:
        done = {run.seed for run in method.runs}
        for seed in comparison.info.seeds:
            if seed not in done and method.same_as is None:
                cell = comparison.path / "cells" / method.name / f"seed-{seed}"
                run = read_run(cell)
                status = run.status if run else "not begun"
                missing.append(f"{method.title}, seed {seed} ({status})")
    if not missing:
        return []
    return [
        f"{comparison.path} is not finished, these runs are left out: {'; '.join(missing)}. "
        "The same `pluralllm compare` goes on with it."
    ]
