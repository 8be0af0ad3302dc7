"""What noise for groups leaves of the alignment: federated averaging, against epsilon.

    python benchmarks/group_noise.py --survey data/globalopinionqa --lines noise.jsonl
    python benchmarks/group_noise.py --survey data/mine --epsilons 10 --rounds 5 --lines mine.jsonl

All train groups in one process, with noise = groups of the given epsilon over all rounds. Masks are
left out, and noise comes from numpy, in float64: opendp's exact noise of the default network takes
a group most of a minute a round. What the sum adds up to has the same distribution. Its groups are
those of the survey; the one line of a cell is added to the file once it has ended, and it is not
run again.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measuring import ROOT, parse

from pluralllm_app.engines.in_process import InProcess
from pluralllm_app.federation import hooks
from pluralllm_app.learning.base import Contribution, Request
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.records.reader import read_rounds
from pluralllm_app.secure_sum.messages import least_threshold
from pluralllm_app.settings import Settings
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.prepared import PreparedSurvey


class Noised(hooks.UpdateHook):
    """Clips updates, and adds the shares of the noise."""

    def __init__(self, noise: GroupNoise | None, norm: float, groups: int) -> None:
        self._clip = GroupNoise(norm, 1.0, 1e-6).clipped
        share = noise.multiplier / np.sqrt(least_threshold(groups)) if noise else 0.0
        self._scale = 2 * norm * share
        self._random = np.random.default_rng(0)
        self.norms: list[float] = []

    def at_group(
        self, group: str, sent: Arrays, contribution: Contribution, request: Request
    ) -> Contribution:
        """The contribution with a clipped and noised change."""
        [(name, weights)] = contribution.arrays.items()
        change = weights.astype(np.float64) - sent[name]
        self.norms.append(float(np.linalg.norm(change)))
        noise = self._random.normal(0, self._scale, len(change)) if self._scale else 0.0
        noised = (sent[name] + self._clip(change) + noise).astype(np.float32)
        nothing = dict.fromkeys(contribution.metrics, 0.0)  # which leave no group with noise
        return Contribution({name: noised}, contribution.weight, nothing)


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True, help="prepared"),
            parser.add_argument("--lines", type=Path, required=True, help="grows by a line a cell"),
            parser.add_argument("--rounds", type=int, default=20),
            parser.add_argument("--norm", type=float, default=1.0, help="update-norm"),
            parser.add_argument("--epsilons", type=float, nargs="*", default=[1.0, 4.0, 10.0]),
        ),
    )
    groups = sum(group.role == "train" for group in PreparedSurvey.open(arguments.survey).groups)
    lines = arguments.lines.read_text().splitlines() if arguments.lines.exists() else []
    done = [json.loads(line) for line in lines]
    for epsilon in (None, *arguments.epsilons):
        key = {
            **{"groups": groups, "epsilon": epsilon},
            **{"norm": arguments.norm, "rounds": arguments.rounds},
        }
        if not any(key.items() <= cell.items() for cell in done):
            found = key | scored(arguments.survey, **key)
            with arguments.lines.open("a") as file:
                file.write(json.dumps(found) + "\n")
            done.append(found)
    print("| train groups | rounds | update-norm | epsilon | alignment untrained | trained |")
    print("|---|---|---|---|---|---|")
    for each in done:
        epsilon = "no noise, clipped" if each["epsilon"] is None else f"{each['epsilon']:g}"
        print(
            f"| {each['groups']} | {each['rounds']} | {each['norm']:g} | {epsilon} | "
            f"{each['untrained']:.3f} | {each['trained']:.3f} |"
        )


def scored(
    survey: Path, groups: int, epsilon: float | None, norm: float, rounds: int
) -> dict[str, float]:
    """Mean alignment of groups that never train, and the median norm of an update."""
    config = read_defaults(ROOT / "pyproject.toml") | {
        **{"survey": str(survey.resolve()), "train-groups-per-round": 0, "rounds": rounds},
        **{"evaluate-every": rounds, "weighting": "uniform"},
    }
    noised = {"noise": "groups", "epsilon": epsilon or 1.0, "update-norm": norm}
    federation = Settings.from_config(config | noised | {"privacy": "secure-sum"}).federation
    hook = Noised(GroupNoise.of(federation) if epsilon else None, norm, groups)
    hooks.HOOKS.append(hook)
    try:
        with TemporaryDirectory() as place:
            out = Path(place) / "run"
            with InProcess(config | {"out": str(out)}) as run:
                run.wait().check()
            entries = read_rounds(out, complete=True)
    finally:
        hooks.HOOKS.remove(hook)
    means = []
    for entry in (entries[0], entries[-1]):
        assert entry.evaluation, "the first and the last round are evaluated"
        role = entry.evaluation.roles["evaluation"]
        assert role, "some groups never train"
        means.append(role.mean)
    return {
        "untrained": means[0],
        "trained": means[1],
        "median_norm": float(np.median(hook.norms)),
    }


if __name__ == "__main__":
    main()
