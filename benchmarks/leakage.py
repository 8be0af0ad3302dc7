"""What a server recovers of a group's answers, by what it is sent and what hides it: one table.

    python benchmarks/leakage.py --threads 1 --survey data/globalopinionqa --lines leakage.jsonl
    python benchmarks/leakage.py --threads 1 --lines demo.jsonl --attacks sums  # of the demo

Each attack looks for the shares of some train groups (--groups), and is scored by the alignment of
what it finds with their true answers, on the questions that it looks at. The floor is what is told
without it: the released factors' prediction of a group of which nothing is given, on the same
questions; for an update of the transformer, in whose first round nothing has been learned, a guess
that all options are equally popular. What goes beyond the floor is leakage.

questions which of them an update of the transformer used, without any draw: the part that is right
          of those that the attacker names, 40 at most; the floor is chance.
updates   see leakage_updates. "Draws known" is what a server of a simulation knows; a node of a
          deployment draws by a secret of its own, so that the attacker tries those of another seed.
          With noise for groups, the update of one who spends all epsilon on one round, clipped at
          its own length, by whoever knows the updates of all others: noise as large as the promise
          needs, on nothing but this update.
sums      of factors, in the first round, read off.
secure    a secure sum over 3 and 8 groups by whoever knows all contributions but two: half of what
          is left, for either of the two.
noise     both of answers with noise for respondents, of whom --respondents have answered each
          question; as they are read off, or predicted by the released factors from all that was
          read off, whichever is nearer.

A line is added to the file for each cell once it has ended, and it is not run again. Better attacks
than these exist: what stands here is told at least.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import leakage_sums as sums
import leakage_updates as updates
import numpy as np
from in_process import settings_of
from measuring import ROOT, parse

from pluralllm_app.predictors.base import ContextPredictor
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.accounting import rho_of
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.demo import write_demo
from pluralllm_app.survey.prepared import PreparedSurvey

Found = list[tuple[float, float]]  # alignment and floor, of each group
SGD: dict[str, Scalar] = {"optimizer": "sgd", "learning-rate": 0.1, "weight-decay": 0.0}
KEPT: dict[str, Scalar] = {"client-optimizer-state": "keep"}
UPDATES: dict[str, tuple[dict[str, Scalar], bool]] = {  # settings, and whether draws are known
    "SGD, 1 local step, draws known": (SGD | {"local-steps": 1}, True),
    "SGD, 1 local step, draws secret": (SGD | {"local-steps": 1}, False),
    "SGD, 6 local steps, draws known": (SGD | {"local-steps": 6}, True),
    "SGD, 50 local steps, draws known": (SGD | {"local-steps": 50}, True),
    "AdamW, 1 local step, draws known": ({"local-steps": 1}, True),
    "AdamW, 1 local step, moments kept, draws known": (KEPT | {"local-steps": 1}, True),
    "AdamW, 6 local steps, draws known": ({"local-steps": 6}, True),
    "AdamW, 6 local steps, moments kept, draws known": (KEPT | {"local-steps": 6}, True),
    "AdamW, 50 local steps, draws known": ({"local-steps": 50}, True),
}
EPSILONS = (1.0, 4.0, 10.0)
ATTACKS = ["sums", "secure", "noise", "questions", "updates"]


class Attacks:
    """The attacks, by the names of their cells."""

    def __init__(self, survey: PreparedSurvey, arguments: Any) -> None:
        self._survey = survey
        self._arguments = arguments
        names = [group.name for group in survey.groups if group.role == "train"]
        self._groups = [survey.preferences(name) for name in names]
        self._attacked = self._groups[: arguments.groups]

    def cells(self) -> Iterator[tuple[str, Callable[[], Found]]]:
        """Each attack's name, and how it is run."""
        chosen = self._arguments.attacks
        sizes = [size for size in (3, 8) if size <= len(self._groups)]
        totals = {1: "plain sum"} | {
            size: f"secure sum of {size} groups, all known but two" for size in sizes
        }
        if "sums" in chosen:
            yield f"factors, {totals[1]}", partial(self._sums, 1, None)
        if "secure" in chosen:
            for size in sizes:
                yield f"factors, {totals[size]}", partial(self._sums, size, None)
        if "noise" in chosen:
            for size, total in totals.items():
                for epsilon in EPSILONS:
                    yield (
                        f"factors, {total}, noise for respondents, epsilon {epsilon:g}",
                        partial(self._sums, size, epsilon),
                    )
        if "questions" in chosen:
            for steps in (1, 6):
                yield (
                    f"transformer, SGD, local-steps {steps}: questions rightly named",
                    partial(self._questions, steps),
                )
        if "updates" in chosen:
            for name, (changes, known) in UPDATES.items():
                yield f"transformer, {name}", partial(self._update, changes, known, None)
            one = "SGD, 1 local step, draws known"
            for epsilon in EPSILONS:
                yield (
                    f"transformer, {one}, noise for groups, epsilon {epsilon:g}",
                    partial(self._update, *UPDATES[one], epsilon),
                )

    def _sums(self, size: int, epsilon: float | None) -> Found:
        """Of one group in the clear, or of `size` by who knows all but two, with noise or none."""
        changes: dict[str, Scalar] = {"privacy": "secure-sum", "train-groups-per-round": 0}
        settings, metric = settings_of(**(changes if size > 1 else {})), self._survey.metric
        given, released = self._released(epsilon)
        among = given[:size] if size > 1 else given[: len(self._attacked)]
        contributions = sums.first_contributions(self._survey, among, settings)
        if size > 1:
            names = ("cross", "gram")
            rest = {name: sum(each[name] for each in contributions[:2]) for name in names}
            contributions = [rest, rest]
        found = []
        for own, answers, total in zip(self._groups, given, contributions, strict=False):
            inside, shares = sums.read_off(total, sums.trained_on(answers, settings))
            true = own.select(np.flatnonzero(np.isin(own.questions, inside.questions)))
            true = replace(true, description=None)
            recovered = sums.aligned(true, shares, metric)
            if epsilon:
                asked = replace(inside, shares=shares.astype(np.float32))
                predicted = released.predict(asked, asked.ask(np.arange(len(asked)))).shares
                recovered = max(recovered, sums.aligned(true, predicted, metric))
            found.append((recovered, sums.floor(released, true, metric)))
        return found

    @cache  # noqa: B019 -- one object in a run
    def _released(self, epsilon: float | None) -> tuple[list[PreferenceSet], ContextPredictor]:
        """The answers of all groups, noised where there is noise, and the model learned of them."""
        settings, groups = settings_of(), self._groups
        if epsilon:
            noise = epsilon, self._arguments.respondents, settings.federation.delta
            groups = [sums.noised(own, *noise) for own in groups]
        return groups, sums.released(self._survey, groups, settings)

    def _questions(self, steps: int) -> Found:
        settings, dim = self._settings(SGD | {"local-steps": steps}), self._survey.dim
        return [
            updates.questions_found(updates.updated(own, settings, dim), own, settings, dim)
            for own in self._attacked
        ]

    def _update(self, changes: dict[str, Scalar], known: bool, epsilon: float | None) -> Found:
        settings = self._settings(changes)
        return [self._attack_update(own, settings, known, epsilon) for own in self._attacked]

    def _settings(self, changes: dict[str, Scalar]) -> Settings:
        most = self._arguments.questions
        tasks: dict[str, Scalar] = {"context-max": most, "target-max": most}
        fixed: dict[str, Scalar] = {"schedule": "constant"}
        return Settings.from_config(
            read_defaults(ROOT / "pyproject.toml") | tasks | fixed | changes
        )

    def _attack_update(
        self, own: PreferenceSet, settings: Settings, known: bool, epsilon: float | None
    ) -> tuple[float, float]:
        update = updates.updated(own, settings, self._survey.dim)
        if epsilon:
            update = updates.noised(update, rho_of(epsilon, settings.federation.delta))
        seed = updates.TRUE_SEED if known else updates.OTHER_SEED
        draws = updates.drawn(own, settings, seed, update.round)
        steps = max(4, self._arguments.steps // len(draws))
        found = updates.recovered(update, own, settings, draws, steps)
        asked = own.select(found.questions)
        guess = np.repeat(1 / asked.options, asked.options)
        return tuple(
            sums.aligned(asked, shares, self._survey.metric) for shares in (found.shares, guess)
        )


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, help="prepared; default: the demo"),
            parser.add_argument("--lines", type=Path, required=True, help="file of the results"),
            parser.add_argument("--groups", type=int, default=2, help="that are attacked"),
            parser.add_argument("--respondents", type=int, default=1000, help="assumed"),
            parser.add_argument("--questions", type=int, default=9, help="of context, and target"),
            parser.add_argument(
                "--steps", type=int, default=80, help="of a search, by local steps"
            ),
            parser.add_argument(
                "--attacks",
                nargs="+",
                choices=ATTACKS,
                default=ATTACKS,
            ),
        ),
    )
    done = {}
    if arguments.lines.exists():
        lines = map(json.loads, arguments.lines.read_text().splitlines())
        done = {line["attack"]: line["found"] for line in lines}
    with TemporaryDirectory() as directory:
        path = arguments.survey or Path(directory) / "demo"
        if not arguments.survey:
            write_demo(path)
        for name, run in Attacks(PreparedSurvey.open(path), arguments).cells():
            if name not in done:
                done[name] = run()
                with arguments.lines.open("a") as file:
                    file.write(json.dumps({"attack": name, "found": done[name]}) + "\n")
    print("| what the server has | recovered | floor |\n|---|---|---|")
    for name, found in done.items():
        recovered, floor = np.mean(found, axis=0)
        print(f"| {name} | {recovered:.3f} | {floor:.3f} |")


if __name__ == "__main__":
    main()
