"""Scores of runs whose server sees sums alone, against those of runs in the clear.

    python benchmarks/secure_scores.py --survey data/globalopinionqa
    python benchmarks/secure_scores.py --survey data/mine --rounds 5

Factors, by conf/factors.toml, and federated averaging of the transformer, both over all train
groups, in one process. In the clear factors learn from every row; secure sums leave out those that
fewer than min-contributors groups answered, which is the whole difference.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import ROOT, parse, publish

from pluralllm_app.engines.in_process import InProcess
from pluralllm_app.records.reader import read_rounds
from pluralllm_app.settings import Scalar
from pluralllm_app.settings_files import flatten, read_defaults, read_toml

SECURE = {"privacy": "secure-sum"}


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True, help="prepared"),
            parser.add_argument("--rounds", type=int, default=20),
        ),
    )
    config = read_defaults(ROOT / "pyproject.toml") | {
        "survey": str(arguments.survey.resolve()),
        "train-groups-per-round": 0,
        "evaluate-every": arguments.rounds,
    }
    factors = config | flatten(read_toml(ROOT / "conf/factors.toml"))
    factors["evaluate-every"] = arguments.rounds
    runs = {
        "gpo, in the clear": config,
        "gpo, secure": config | SECURE,
        "factors, in the clear": factors,
        "factors, secure, min-contributors 2": factors | SECURE | {"min-contributors": 2},
        "factors, secure, min-contributors 3": factors | SECURE,
    }
    results: dict[str, Any] = {}
    for name, own in runs.items():
        with TemporaryDirectory() as place:
            results |= scores(name, own | {"rounds": arguments.rounds}, Path(place) / "run")
    publish("secure_scores", results, arguments.json)


def scores(name: str, config: dict[str, Scalar], out: Path) -> dict[str, float]:
    """Mean alignment of groups that never train, or else of all; seconds of the rounds."""
    with InProcess(config | {"out": str(out)}) as run:
        run.wait().check()
    *_, last = rounds = read_rounds(out, complete=True)
    assert last.evaluation, "the last round is evaluated"
    roles = last.evaluation.roles
    role = roles.get("evaluation", roles["train"])
    return {
        f"{name}: alignment": role.mean,
        f"{name}: seconds a round": sum(each.seconds for each in rounds) / len(rounds),
    }


if __name__ == "__main__":
    main()
