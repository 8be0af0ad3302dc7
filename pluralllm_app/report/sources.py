"""What a report is of: run directories and comparisons, as methods with one title each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pluralllm_app.errors import UserError
from pluralllm_app.experiments.methods import METHODS, MethodSpec
from pluralllm_app.experiments.results import Comparison, MethodResult, Run
from pluralllm_app.experiments.tables import method_title
from pluralllm_app.records.reader import COMPARISON, RUN
from pluralllm_app.records.schema import ComparisonInfo, RecordedSurvey, RosterEntry, RunInfo
from pluralllm_app.settings import PATHS

# Settings that decide on which questions and contexts a group is scored.
SCORING = (
    "evaluation-seed",
    "evaluation-draws",
    "evaluation-context",
    "held-out-fraction",
    "reserved-fraction",
)
_OF_SEED = (*PATHS, "seed", "evaluation-seed")  # settings in which the seeds of a method differ


@dataclass(frozen=True)
class ReportMethod:
    """A row of the report's tables: a method with its runs, by seed."""

    title: str  # no other method of the report has it
    kind: str  # e.g. "federated"
    result: MethodResult
    peers: Sequence[MethodResult]  # finished runs that it is compared with, its own among them
    directory: str  # name of the directory that tells it from another of the same title
    same_as: str | None  # title of the method that was run in its place

    @property
    def spec(self) -> MethodSpec | None:
        """What is known of the kind; None for one that this version does not have."""
        return METHODS.get(self.kind)

    @property
    def finished(self) -> bool:
        return all(run.finished for run in self.result.runs)


@dataclass(frozen=True)
class Source:
    """One run or comparison."""

    path: Path
    info: RunInfo | ComparisonInfo
    runs: Sequence[Run]


@dataclass(frozen=True)
class Sources:
    """Everything a report is of; all of one survey."""

    sources: Sequence[Source]
    methods: Sequence[ReportMethod]
    comparisons: Sequence[Comparison]

    @property
    def runs(self) -> list[Run]:
        """All runs, each once."""
        return [run for source in self.sources for run in source.runs]

    @property
    def survey(self) -> RecordedSurvey | None:
        """The survey; None where no run got as far as to say so."""
        return next((run.info.survey for run in self.runs if run.info.survey), None)

    @property
    def roster(self) -> Sequence[RosterEntry]:
        """Every group, as far as known."""
        return next((run.info.roster for run in self.runs if run.info.roster), [])

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def reserved(self) -> bool:
        """Whether questions were kept from all training."""
        return any(run.info.settings.get("reserved-fraction") for run in self.runs)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Read run directories and comparisons, finished or not.

    Raises:
        UserError: a path is neither, or damaged, or they are of different surveys.
    """
    sources, alone, comparisons = [], [], []
    for path in dict.fromkeys(path.expanduser().resolve() for path in paths):
        if (path / COMPARISON).exists():
            comparison = Comparison.read(path)
            results = [method for method in comparison.methods if method.same_as is None]
            runs = [run for method in results for run in method.runs]
            sources.append(Source(path, comparison.info, runs))
            comparisons.append(comparison)
        elif (path / RUN).exists():
            run = Run.read(path)
            sources.append(Source(path, run.info, [run]))
            alone.append(run)
        else:
            what = f"has neither {RUN} nor {COMPARISON}" if path.exists() else "does not exist"
            raise UserError(
                f"{path} {what}: give the directory that `pluralllm run`, `centralized` or "
                "`compare` wrote"
            )
    _check_one_survey(sources)
    methods = [method for found in comparisons for method in _of_comparison(found)]
    return Sources(sources, _distinct(methods + _of_runs(alone)), comparisons)


def _check_one_survey(sources: Sequence[Source]) -> None:
    of: dict[str, str] = {}
    for source in sources:
        if survey := source.info.survey:
            of.setdefault(survey.fingerprint, f"{source.path} ({survey.name})")
    if len(of) > 1:
        raise UserError(
            "these are of different surveys, or of one before and after its questions or "
            f"embeddings changed: {', '.join(of.values())}. Scores on different questions do not "
            "compare: make a report of each"
        )


def _of_comparison(comparison: Comparison) -> list[ReportMethod]:
    return [
        ReportMethod(
            title=method_title(method),
            kind=method.name,
            result=method,
            peers=comparison.methods,
            directory=comparison.path.name,
            same_as=method.same_as,
        )
        for method in comparison.methods
    ]


def _of_runs(runs: Sequence[Run]) -> list[ReportMethod]:
    """Runs that differ in their seeds alone are one method."""

    def settings(run: Run) -> str:
        kept = {key: value for key, value in run.info.settings.items() if key not in _OF_SEED}
        return repr((run.method, sorted(kept.items())))

    found: list[dict[int, Run]] = []
    latest: dict[str, dict[int, Run]] = {}
    for run in runs:
        seeds = latest.get(settings(run), {run.seed: run})
        if run.seed in seeds:  # the first, or the same run again, e.g. stopped and begun anew
            seeds = latest[settings(run)] = {}
            found.append(seeds)
        seeds[run.seed] = run
    results = [_result(list(seeds.values())) for seeds in found]
    peers = [
        replace(result, runs=[run for run in result.runs if run.finished and run.losses()])
        for result in results
    ]
    return [
        ReportMethod(
            title=result.title,
            kind=result.name,
            result=result,
            peers=peers,
            directory=result.runs[0].path.name,
            same_as=None,
        )
        for result in results
    ]


def _result(runs: Sequence[Run]) -> MethodResult:
    name = runs[0].method
    known = METHODS.get(name)
    title = known.title if known else name
    strategy = runs[0].info.settings.get("strategy", "fedavg")
    if name == "federated" and strategy != "fedavg":
        title += f", {strategy}"
    return MethodResult(name, title, known.pools_answers if known else False, None, len(runs), runs)


def _distinct(methods: Sequence[ReportMethod]) -> list[ReportMethod]:
    """Titles that several methods have get the name of their directory, then a number."""
    suffixes = [method.directory for method in methods]
    numbers = [f"no. {number}" for number, _ in enumerate(methods, start=1)]
    for words in (suffixes, numbers):
        taken = Counter(method.title for method in methods)
        methods = [
            replace(method, title=f"{method.title} · {word}") if taken[method.title] > 1 else method
            for method, word in zip(methods, words, strict=True)
        ]
    return list(methods)
