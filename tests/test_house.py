"""The house stands: rooms import in one direction, the domain knows no Flower, files stay small."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pluralllm_app"
# A module imports from its own line and the lines above, never from one below.
ROOMS = (
    ("errors", "core"),
    ("settings", "settings_files", "settings_privacy"),
    ("survey", "preferences", "secure_sum"),
    ("predictors", "privacy"),
    ("scoring",),
    ("learning",),
    ("records",),
    ("federation",),
    ("client_app", "server_app"),
    ("engines",),
    ("experiments",),
    ("use",),
    ("rewards", "judge"),
    ("serve",),
    ("report", "deploy"),
    ("cli",),
    ("__main__",),
)
DOMAIN = ("errors", "core", "survey", "preferences", "predictors", "privacy", "scoring", "learning")
MOST_LINES = 350
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


@cache
def named(file: Path) -> set[str]:
    """What a file imports anywhere, also inside functions, and the modules named in texts."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and node.value in FILES:
            found.add(node.value)
    return found


@cache
def imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in named(FILES[module]):
        while name not in FILES and "." in name:
            name = name.rpartition(".")[0]
        if name in FILES and name not in (module, PACKAGE):
            found.add(name)
    return found


def room(module: str) -> str:
    return module.split(".")[1]


MODULES = [module for module in FILES if module != PACKAGE]  # which itself is the public names
LEAN = ("client_app", "learning.factors", "federation.rounds", "engines.preflight")  # without torch
LIGHT = ("cli.main", "experiments.tables", "report.sources")  # none needs torch, Flower or pandas


def test_no_module_imports_a_later_room() -> None:
    upward = {
        (module, other)
        for module in MODULES
        for other in imports(module)
        if FLOOR[room(other)] > FLOOR[room(module)]
    }
    assert upward == set()


def test_there_is_no_circle_of_imports() -> None:
    try:
        TopologicalSorter({module: imports(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_the_domain_knows_no_flower() -> None:
    domain = [module for module in MODULES if room(module) in DOMAIN]
    known = {(module, name) for module in domain for name in named(FILES[module])}
    assert {pair for pair in known if pair[1].split(".")[0] in ("flwr", "ray")} == set()


def test_secure_sums_know_no_flower_but_its_secret_sharing() -> None:
    own = [module for module in MODULES if room(module) == "secure_sum"]
    known = {(module, name) for module in own for name in named(FILES[module]) if "flwr" in name}
    assert {module for module, _ in known} == {f"{PACKAGE}.secure_sum.shares"}
    assert {name.rpartition(".")[0] for _, name in known} == {
        "flwr.common.secure_aggregation.crypto.shamir"
    }


def test_files_are_small() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for part in (PACKAGE, "tests", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
    }
    assert {path for path, lines in lengths.items() if lines > MOST_LINES} == set()


IMPORT_ALL = """
import sys
from importlib import import_module
for module in sys.argv[1:]:
    import_module(module)
    print(module, *sorted({"torch", "flwr", "ray", "pandas"} & set(sys.modules)))
"""


def told_on_import(modules: list[str]) -> list[str]:
    """A line for each module, imported one after another: its name, and what is heavy by then."""
    told = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def test_commands_and_what_reads_results_import_nothing_heavy() -> None:
    modules = [PACKAGE, *(f"{PACKAGE}.{name}" for name in LIGHT)]
    assert told_on_import(modules) == modules


def test_factors_are_learned_without_torch() -> None:
    modules = [f"{PACKAGE}.{name}" for name in LEAN]
    lines = told_on_import(modules)
    assert len(lines) == len(modules)
    assert [line for line in lines if "torch" in line.split()] == []
