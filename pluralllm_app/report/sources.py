"""What a report is of: run directories and comparisons, as methods with one title each."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pluralllm_app.errors import UserError
from pluralllm_app.experiments.comparison import METHODS
from pluralllm_app.experiments.results import Comparison, MethodResult, Run
from pluralllm_app.experiments.tables import method_title
from pluralllm_app.records.writer import read_run
from pluralllm_app.settings import PATHS
from pluralllm_app.survey.info import ROLES

# Settings that decide on which questions and contexts a group is scored.
SCORING = (
    "evaluation-seed",
    "evaluation-draws",
    "evaluation-context",
    "held-out-fraction",
    "reserved-fraction",
)
_OWN = (*PATHS, "seed", "evaluation-seed")  # settings that differ between seeds of a run


@dataclass(frozen=True)
class Method:
    """A row of the report's tables: a method with its runs, by seed."""

    title: str  # no other method of the report has it
    kind: str  # e.g. "federated"
    result: MethodResult
    comparison: Comparison  # finished runs that its costs are measured against
    same_as: str | None  # title of the method that was run in its place

    @property
    def finished(self) -> bool:
        return all(run.finished for run in self.result.runs)


@dataclass(frozen=True)
class Source:
    """One run or comparison: what run.json or comparison.json says of it."""

    path: Path
    description: Mapping[str, Any]
    runs: Sequence[Run]


@dataclass(frozen=True)
class Sources:
    """Everything a report is of; all of one survey."""

    sources: Sequence[Source]
    methods: Sequence[Method]
    notices: Sequence[str]  # what a reader must know before the numbers

    @property
    def runs(self) -> list[Run]:
        """All runs, each once."""
        return [run for source in self.sources for run in source.runs]

    @property
    def survey(self) -> Mapping[str, Any]:
        """`name` and `fingerprint` of the survey; {} where no run got as far as to say so."""
        known = (run.record.get("survey") for run in self.runs)
        return next((survey for survey in known if survey), {})

    @property
    def roster(self) -> Sequence[Mapping[str, Any]]:
        """`group`, `role` and `questions` of every group, as far as known."""
        return next((run.record["roster"] for run in self.runs if run.record.get("roster")), [])

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def reserved(self) -> bool:
        """Whether questions were kept from all training."""
        return any(run.record["settings"].get("reserved-fraction") for run in self.runs)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Read run directories and comparisons, finished or not.

    Raises:
        UserError: a path is neither, or damaged, or they are of different surveys.
    """
    paths = list(dict.fromkeys(path.expanduser().resolve() for path in paths))
    sources, alone, compared = [], [], []
    for path in paths:
        if (path / "comparison.json").exists():
            comparison = _read_comparison(path)
            runs = [run for own in comparison.methods if own.same_as is None for run in own.runs]
            sources.append(Source(path, comparison.description, runs))
            compared.append(comparison)
        elif (path / "run.json").exists():
            run = Run.read(path)
            check_run(run)
            sources.append(Source(path, run.record, [run]))
            alone.append(run)
        else:
            what = "has neither run.json nor comparison.json" if path.exists() else "does not exist"
            raise UserError(
                f"{path} {what}: give the directory that `pluralllm run`, `centralized` or "
                "`compare` wrote"
            )
    _check_one_survey(sources)
    methods = [method for own in compared for method in _of_comparison(own)] + _of_runs(alone)
    found = Sources(sources, _distinct(methods), [])
    return replace(found, notices=_notices(found, compared))


def check_run(run: Run) -> None:
    """Raise UserError where a record lacks what the report reads."""
    file = run.path / "run.json"
    try:
        record = run.record
        json.dumps([record, run.rounds], ensure_ascii=False).encode()  # no half characters
        record["method"], record["settings"].items(), int(record["seed"]), record["status"]
        for group in record.get("roster") or []:
            group["group"], group["role"], group["questions"]
        for survey in filter(None, [record.get("survey")]):
            survey["name"], survey["fingerprint"]
        file = run.path / "rounds.jsonl"
        for index in run.evaluated:
            evaluation = run.rounds[index]["evaluation"]
            for summary in filter(None, (evaluation["roles"][role] for role in ROLES)):
                for key in ("mean", "worst", "gap", "cov", "fi"):
                    float(summary[key])
            for group in evaluation["groups"].values():
                group["role"], float(group["alignment"])
        run.losses()
    except KeyError as error:
        raise UserError(f"{file} is damaged: it lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}") from error


def _read_comparison(path: Path) -> Comparison:
    file = path / "comparison.json"
    try:
        comparison = Comparison.read(path)
        description = comparison.description
        for key in ("name", "fingerprint"):
            str(description["survey"][key])
        description["settings"].items()
    except KeyError as error:
        raise UserError(f"{file} is damaged: it lacks {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} or a run in it is damaged: {error}") from error
    for method in comparison.methods:
        for run in method.runs:
            check_run(run)
    return comparison


def _check_one_survey(sources: Sequence[Source]) -> None:
    of: dict[str, Source] = {}
    for source in sources:
        survey = source.description.get("survey") or {}
        if fingerprint := survey.get("fingerprint"):
            of.setdefault(fingerprint, source)
    if len(of) > 1:
        named = [f"{own.path} ({own.description['survey']['name']})" for own in of.values()]
        raise UserError(
            f"these are of different surveys: {', '.join(named)}: make a report of each"
        )


def _of_comparison(comparison: Comparison) -> list[Method]:
    return [
        Method(method_title(own), own.name, own, comparison, own.same_as)
        for own in comparison.methods
    ]


def _of_runs(runs: Sequence[Run]) -> list[Method]:
    """Runs that differ in their seeds alone are one method."""

    def settings(run: Run) -> str:
        own = {key: value for key, value in run.record["settings"].items() if key not in _OWN}
        return repr((run.method, sorted(own.items())))

    found: list[dict[int, Run]] = []
    latest: dict[str, dict[int, Run]] = {}
    for run in runs:
        seeds = latest.get(settings(run), {run.seed: run})
        if run.seed in seeds:  # the first, or the same run again, e.g. stopped and begun anew
            seeds = latest[settings(run)] = {}
            found.append(seeds)
        seeds[run.seed] = run
    results = [_result(list(seeds.values())) for seeds in found]
    finished = [
        replace(own, runs=[run for run in own.runs if run.finished and run.losses()])
        for own in results
    ]
    comparison = Comparison(Path(), {}, finished)
    return [Method(own.title, own.name, own, comparison, None) for own in results]


def _result(runs: Sequence[Run]) -> MethodResult:
    name = runs[0].method
    known = METHODS.get(name)
    title = known.title if known else name
    strategy = runs[0].record["settings"].get("strategy", "fedavg")
    if name == "federated" and strategy != "fedavg":
        title += f", {strategy}"
    return MethodResult(name, title, known.pools_answers if known else False, None, len(runs), runs)


def _distinct(methods: Sequence[Method]) -> list[Method]:
    """Titles that several methods have get the name of their directory, then a number."""
    for suffix in (_directory, _number):
        taken = Counter(method.title for method in methods)
        methods = [
            replace(method, title=f"{method.title} · {suffix(method, index)}")
            if taken[method.title] > 1
            else method
            for index, method in enumerate(methods, start=1)
        ]
    return list(methods)


def _directory(method: Method, _: int) -> str:
    own = method.comparison.path.name
    return own or method.result.runs[0].path.name


def _number(_: Method, index: int) -> str:
    return f"no. {index}"


def _notices(found: Sources, comparisons: Sequence[Comparison]) -> list[str]:
    notices = [_unfinished(run) for run in found.runs if not run.finished]
    for comparison in comparisons:
        notices += _unfinished_cells(comparison)
    for run in found.runs:
        if not run.evaluated:
            notices.append(f"{run.path} has no evaluation: it has no scores here.")
    trained = [method for method in found.methods if method.result.runs]
    if trained and all(len(method.result.runs) == 1 for method in trained):
        notices.append("One seed: there are no intervals, and differences may be chance.")
    elif single := [own.title for own in trained if len(own.result.runs) == 1]:
        notices.append(f"One seed only, so no interval: {', '.join(single)}.")
    if found.roster and not any(group["role"] == "evaluation" for group in found.roster):
        notices.append(
            "The survey has no evaluation groups: there are no scores for groups never trained on."
        )
    for key in SCORING[1:]:
        values = {run.record["settings"].get(key) for run in found.runs}
        if len(values) > 1:
            notices.append(
                f"The runs differ in {key} ({', '.join(sorted(map(str, values)))}): their scores "
                "are on different questions or contexts and do not compare exactly."
            )
    by_seed: dict[int, set[Any]] = {}
    for run in found.runs:
        by_seed.setdefault(run.seed, set()).add(run.record["settings"].get("evaluation-seed"))
    if any(len(seeds) > 1 for seeds in by_seed.values()):
        notices.append(
            "Runs of one seed differ in evaluation-seed: they are scored on different contexts."
        )
    return notices


def _unfinished(run: Run) -> str:
    text = {
        "running": "is not finished (or was cut off)",
        "failed": "failed",
        "stopped": "was stopped",
    }.get(str(run.record["status"]), "is not finished")
    last = f" after round {run.rounds[-1]['round']}" if run.rounds else " before its first round"
    cause = f": {run.record['error']}" if run.record.get("error") else ""
    return f"{run.path} {text}{last}{cause}. What is shown of it is where it stood."


def _unfinished_cells(comparison: Comparison) -> list[str]:
    missing = []
    for method in comparison.methods:
        done = {run.seed for run in method.runs}
        for seed in comparison.description["seeds"]:
            if seed not in done and method.same_as is None:
                cell = comparison.path / "cells" / method.name / f"seed-{seed}"
                status = read_run(cell).get("status", "not begun")
                missing.append(f"{method.title}, seed {seed} ({status})")
    if not missing:
        return []
    return [
        f"{comparison.path} is not finished, these runs are left out: {'; '.join(missing)}. "
        "The same `pluralllm compare` goes on with it."
    ]
