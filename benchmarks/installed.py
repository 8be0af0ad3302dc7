"""What an installation costs: MB on disk of each extra, and seconds to import what it is for.

    python benchmarks/installed.py
    python benchmarks/installed.py --extras gpo embed --python python3.13

Each is installed into a new virtual environment, in the versions of constraints.txt, and measured
against one that is empty. The extra "" is the base installation. Seconds are those of the
processor, with the start of Python, and the least of several tries.
"""

import subprocess
import tempfile
from pathlib import Path

from measuring import ROOT, Results, parse, publish

# What one imports to do what an extra is for.
USES = {
    "": "pluralllm_app.predictors.saved, pluralllm_app.predictors.factors.predictor",
    "gpo": "pluralllm_app.predictors.gpo.predictor",
    "embed": "pluralllm_app.survey.embedders.transformer",
    "survey": "pluralllm_app.survey.prepare, pluralllm_app.survey.sources.table",
    "federation": "pluralllm_app.server_app, pluralllm_app.client_app",
    "embed,federation": "pluralllm_app",
}
TIMED = "import {}; from time import process_time; print(process_time())"
REPEATS = 7


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--extras", nargs="+", default=list(USES), choices=USES),
            parser.add_argument("--python", default="python3", help="that makes environments"),
            parser.add_argument("--repeats", type=int, default=REPEATS),
        ),
    )
    results: Results = {}
    for extra in arguments.extras:
        with tempfile.TemporaryDirectory() as directory:
            environment = Path(directory)
            subprocess.run([arguments.python, "-m", "venv", environment], check=True)
            empty = megabytes(environment)
            install(environment, extra)
            tries = [seconds(environment, USES[extra]) for _ in range(1 + arguments.repeats)]
            name = f"[{extra}]" if extra else "base"
            results[f"{name}: MB"] = megabytes(environment) - empty
            results[f"{name}: s to import {USES[extra]}"] = min(tries[1:])
    publish("installed", results, arguments.json)


def install(environment: Path, extra: str) -> None:
    """Install this checkout with an extra."""
    what = f"{ROOT}[{extra}]" if extra else str(ROOT)
    pip = [environment / "bin" / "pip", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", "--editable", what], check=True)


def megabytes(directory: Path) -> float:
    """What the files of a directory hold, without what Python compiled of them."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc") / 1e6


def seconds(environment: Path, modules: str) -> float:
    """Processor seconds until modules are imported."""
    told = subprocess.run(
        [environment / "bin" / "python", "-c", TIMED.format(modules)],
        cwd=environment,
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(told.stdout)


if __name__ == "__main__":
    main()
