"""What can be done without the optional parts of an installation, and what is said of the rest."""

import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pluralllm_app import load_predictor, save_predictor
from pluralllm_app.core.parts import PARTS, explained, installation, missing, need
from pluralllm_app.errors import MissingPartError
from pluralllm_app.preferences import PreferenceSet
from tests.conftest import ROOT
from tests.support.bare import COMMAND, bare
from tests.support.factors import first_predictor
from tests.support.preferences import preference_set

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONS = np.array([2, 3, 2])


def requirements(texts: list[str]) -> list[Requirement]:
    """Requirements, with what extras of this package stand for."""
    found = []
    for requirement in map(Requirement, texts):
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras:
                found += requirements(EXTRAS[extra])
        else:
            found.append(requirement)
    return found


def context(embeddings: np.ndarray) -> PreferenceSet:
    return preference_set("new", {0: [0.9, 0.1], 1: [0.2, 0.5, 0.3]}, OPTIONS, embeddings)


PREDICT = """
import numpy as np
from pluralllm_app import PreferenceSet, QuestionSet, load_predictor
predictor = load_predictor(sys.argv[1])
table = np.load(sys.argv[2])
known = PreferenceSet(
    embeddings=table, questions=np.array([0, 1]), first_rows=np.array([0, 2]),
    options=np.array([2, 3]), group="new", shares=np.array([0.9, 0.1, 0.2, 0.5, 0.3], np.float32)
)
asked = QuestionSet(
    embeddings=table, questions=np.array([2]), first_rows=np.array([5]), options=np.array([2])
)
prediction = predictor.predict(known, asked)
print(*prediction.shares.tolist(), *prediction.intervals.ravel().tolist())
"""


def test_factors_predict_without_any_optional_part(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float16)
    np.save(tmp_path / "table.npy", table)
    save_predictor(first_predictor(table, OPTIONS, 3), tmp_path / "saved")
    told = bare(PREDICT, str(tmp_path / "saved"), str(tmp_path / "table.npy"))
    assert told.returncode == 0, told.stderr
    asked = preference_set("new", {2: [0.5, 0.5]}, OPTIONS, table)
    here = load_predictor(tmp_path / "saved").predict(context(table), asked)
    assert here.intervals is not None
    expected = [*here.shares.tolist(), *here.intervals.ravel().tolist()]
    assert [float(number) for number in told.stdout.split()] == pytest.approx(expected, abs=1e-12)


def test_the_command_answers_without_any_optional_part() -> None:
    for arguments in (["--version"], ["--help"], ["run", "--help"]):
        told = bare(COMMAND, *arguments)
        assert (told.returncode, told.stderr) == (0, ""), arguments
        assert told.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("run", "federation"),
        ("compare --seeds 2", "federation"),
        ("centralized", "federation"),
        ("settings rounds", "federation"),
        ("deploy status trial", "federation"),
        ("deploy init trial --server localhost --questionnaire q", "federation"),
        ("prepare demo --out demo", "survey"),
        ("site create data/demo --group A --out sites/a", "survey"),
        ("site check sites/a", "survey"),
        ("questionnaire data/demo --out out", "survey"),
        ("report runs/first", "report"),
        ("serve runs/first", "serve"),
        ("judge --survey data/demo --export tasks", "judge"),
    ],
)
def test_commands_say_in_one_line_what_is_missing(arguments: str, part: str) -> None:
    told = bare(COMMAND, *arguments.split())
    command = arguments.split()[0]
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"Error: `pluralllm {command}` needs {PARTS[part][0]}")
    assert line.endswith(f" not installed here: pip install 'pluralllm-app[{part}]'")
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "from pluralllm_app import PreparedSurvey",
            "PreparedSurvey needs pyarrow, which is not installed here",
        ),
        (
            "from pluralllm_app.predictors.registry import predictor_class as load; load('gpo')",
            "a predictor of kind 'gpo' needs torch, which is not installed here",
        ),
        (
            "from pluralllm_app.use.reading import read_given; read_given('answers.csv')",
            "reading answers from a file needs pandas, pyarrow and charset_normalizer, which are",
        ),
        (
            "from pluralllm_app.survey.embedders.registry import load_embedder\n"
            "load_embedder('a/b')",
            "the transformers model 'a/b' needs torch, transformers and threadpoolctl, which are",
        ),
        (
            "from pluralllm_app.privacy.accounting import rho_of; rho_of(1.0, 1e-6)",
            "noise for differential privacy needs opendp, which is not installed here",
        ),
    ],
)
def test_functions_say_what_is_missing(program: str, said: str) -> None:
    told = bare(program)
    *_, last = told.stderr.splitlines()
    assert last.startswith("pluralllm_app.errors.MissingPartError: ")
    assert said in last
    assert "pip install 'pluralllm-app[" in last


def test_a_part_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    need("survey", "this test")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert missing("survey") == ["pandas"]
    with pytest.raises(MissingPartError) as error:
        need("survey", "this test")
    assert str(error.value) == (
        "this test needs pandas, which is not installed here: pip install 'pluralllm-app[survey]'"
    )
    assert error.value.part == "survey"


def test_modules_of_no_part_are_as_they_were() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), explained("it"):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert installation("gpo") == "pip install 'pluralllm-app[gpo]'"


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_the_extras_of_the_package(part: str) -> None:
    of_module = packages_distributions()
    # Not all are installed here, but those are whose module and distribution have different names.
    names = [name for module in PARTS[part] for name in of_module.get(module, [module])]
    asked = requirements(EXTRAS[part])
    simulation = {"ray"} if any("simulation" in found.extras for found in asked) else set()
    wanted = {canonicalize_name(found.name) for found in asked} | simulation
    assert set(map(canonicalize_name, names)) == wanted


def test_every_extra_but_that_of_developers_is_a_part() -> None:
    assert {*PARTS, "dev"} == set(EXTRAS)


def test_the_tested_versions_are_within_the_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    tested = [texts for extra, texts in EXTRAS.items() if extra != "hub"]  # no test downloads
    for wanted in requirements(sum(tested, PROJECT["dependencies"])):
        assert Version(pins[canonicalize_name(wanted.name)]) in wanted.specifier, wanted
