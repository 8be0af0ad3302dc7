"""Scores with bfloat16 local steps against float32 ones, seed by seed, in this process.

    python benchmarks/precision.py --survey data/demo
    python benchmarks/precision.py --survey data/demo --config conf/fast.toml --seeds 3

Seed n draws contexts and held-out questions anew, for both alike. Scores are computed in float32.
"""

import json
import logging
import tempfile
from pathlib import Path

from measuring import ROOT, parse, publish

from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.experiments.results import ROLES, Interval
from pluralllm_app.experiments.tables import format_interval
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import flatten, read_defaults, read_toml
from pluralllm_app.survey.prepared import PreparedSurvey


def scores(config: dict[str, Scalar], out: Path, groups: int) -> dict[str, float]:
    """Mean alignment of each role after the last round, and the seconds of all rounds."""
    config = config | {"out": str(out)}
    grid = InProcessGrid(client_app.app, config, groups)
    run_federation(grid, Settings.from_config(config), config)
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    last = rounds[-1]["evaluation"]["roles"]
    means = {role: last[role]["mean"] for role in ROLES}
    return means | {"seconds": sum(entry["seconds"] for entry in rounds)}


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True),
            parser.add_argument("--config", type=Path, help="file of settings"),
            parser.add_argument("--seeds", type=int, default=5),
        ),
    )
    logging.getLogger("flwr").setLevel(logging.WARNING)
    config = read_defaults(ROOT / "pyproject.toml")
    if arguments.config:
        config |= flatten(read_toml(arguments.config))
    config |= {"survey": str(arguments.survey.resolve()), "client-threads": arguments.threads}
    groups = len(PreparedSurvey.open(arguments.survey).groups)
    runs = {}
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(arguments.seeds):
            for precision in ("float32", "bfloat16"):
                own = {"seed": seed, "evaluation-seed": seed, "precision": precision}
                out = Path(directory, f"{precision}-{seed}")
                runs[precision, seed] = scores(config | own, out, groups)
    results: dict[str, object] = {"rounds": config["rounds"], "seeds": arguments.seeds}
    for role in ROLES:
        both = {
            precision: [runs[precision, seed][role] for seed in range(arguments.seeds)]
            for precision in ("float32", "bfloat16")
        }
        for precision, values in both.items():
            results[f"{role} groups, {precision}"] = format_interval(Interval.of(values))
        differences = [b - a for a, b in zip(*both.values(), strict=True)]
        results[f"{role} groups, bfloat16 - float32"] = format_interval(Interval.of(differences))
        results[f"{role} groups, differences"] = [round(own, 5) for own in differences]
    results["bfloat16 / float32, seconds"] = sum(
        runs["bfloat16", seed]["seconds"] for seed in range(arguments.seeds)
    ) / sum(runs["float32", seed]["seconds"] for seed in range(arguments.seeds))
    publish("precision", results, arguments.json)


if __name__ == "__main__":
    main()
