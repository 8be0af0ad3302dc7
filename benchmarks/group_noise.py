"""What noise for groups leaves of the alignment: federated averaging, against epsilon.

    python benchmarks/group_noise.py --survey data/globalopinionqa --lines noise.jsonl
    python benchmarks/group_noise.py --survey data/mine --epsilons 10 --rounds 5 --lines mine.jsonl

Runs with noise = groups in one process, with all train groups. Noise comes from numpy, in float64:
opendp's exact noise of the default network takes a group five seconds a round. The line of a cell
is added to the file once it has ended, and it is not run again.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measuring import ROOT, parse

from pluralllm_app.core.segments import Ints
from pluralllm_app.engines.in_process import InProcess
from pluralllm_app.federation import noised_updates
from pluralllm_app.records.reader import read_rounds
from pluralllm_app.settings_files import read_defaults
from pluralllm_app.survey.prepared import PreparedSurvey

RANDOM = np.random.default_rng(0)


def rounded_normal(values: Ints, scale: float) -> Ints:
    """Much faster than the discrete Gaussian, and as good for a benchmark."""
    noise: Ints = np.rint(RANDOM.normal(0, scale, len(values))).astype(np.int64)
    return values + noise


def no_noise(values: Ints, scale: float) -> Ints:
    """What clipping alone does."""
    return values


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True, help="prepared"),
            parser.add_argument("--lines", type=Path, required=True, help="grows by a line a cell"),
            parser.add_argument("--rounds", type=int, default=20),
            parser.add_argument("--norm", type=float, default=1.0, help="update-norm"),
            parser.add_argument("--epsilons", type=float, nargs="*", default=[10.0, 1.0]),
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
    """Mean alignment of groups that never train, before and after."""
    noised_updates.discrete_gaussian = rounded_normal if epsilon else no_noise
    config = read_defaults(ROOT / "pyproject.toml") | {
        **{"survey": str(survey.resolve()), "train-groups-per-round": 0, "rounds": rounds},
        **{"evaluate-every": rounds, "weighting": "uniform", "privacy": "secure-sum"},
        **{"noise": "groups", "epsilon": epsilon or 1.0, "update-norm": norm},
    }
    with TemporaryDirectory() as place:
        out = Path(place) / "run"
        with InProcess(config | {"out": str(out)}) as run:
            run.wait().check()
        entries = read_rounds(out, complete=True)
    means = []
    for entry in (entries[0], entries[-1]):
        assert entry.evaluation, "the first and the last round are evaluated"
        role = entry.evaluation.roles["evaluation"]
        assert role, "some groups never train"
        means.append(role.mean)
    return {"untrained": means[0], "trained": means[1]}


if __name__ == "__main__":
    main()
