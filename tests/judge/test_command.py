"""`pluralllm judge` as a user runs it."""

import csv
import io
import json
from pathlib import Path

import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import UserError
from pluralllm_app.judge import server
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.causal_models import save_causal_model
from tests.support.command import CliRunner
from tests.support.model_server import Reply, Request, model_server, well_behaved
from tests.support.used import NEW, YES_NO


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "PAUSE", 0.001)


def call(*arguments: object) -> tuple[str, str]:
    """Standard output and error of a command that goes well."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(
        app, ["judge", *map(str, arguments)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_a_table(survey: PreparedSurvey, trained: Path) -> None:
    with model_server(well_behaved) as running:
        wishes = ["--survey", survey.path, "--predictor", trained]
        out, err = call("--model", running.address, *wishes)
    lines = out.splitlines()
    assert lines[0].startswith("Alignment of small with groups of Changes (1 is perfect)")
    cells = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in lines if "│" in line}
    assert cells["North"][0].strip() == "9"
    numbers = {name: [float(cell) for cell in own if cell.strip()] for name, own in cells.items()}
    for name in NEW:
        itself, as_group, predictor, consensus, uniform = numbers[name][1:]
        assert as_group == 1  # it says what the group that it is told of says
        assert predictor > consensus
        assert itself == pytest.approx(consensus, abs=1e-3)
        assert uniform < 1
    assert numbers["worst"][1] == 1
    assert "model: 90.0% of its answers name an option" in out
    assert "given 3 answers of each group; no method is scored on these" in out
    assert err == ""


def test_csv_and_json_say_the_same(survey: PreparedSurvey) -> None:
    with model_server(well_behaved) as running:
        wishes = ["--survey", survey.path, "--model", f"{running.address}#small"]
        table, notes = call(*wishes, "--format", "csv")
        asked = len(running.asked)
        content, _ = call(*wishes, "--format", "json")
        assert len(running.asked) == asked  # the cache has it all
    rows = list(csv.DictReader(io.StringIO(table)))
    found = json.loads(content)
    for method in found["methods"]:
        own = [row for row in rows if row["method"] == method["method"]]
        by_score = {(row["score"], row["group"]): float(row["value"]) for row in own}
        for group, score in method["groups"].items():
            assert by_score["alignment", group] == score["alignment"]
            assert score["questions"] == 12
        assert by_score["mean", ""] == method["mean"]
        assert by_score["worst", method["worst_group"]] == method["worst"]
        assert by_score["fi", ""] == method["fi"]
    assert found["survey"]["metric"] == "jensen-shannon"
    asked_of = {"named": pytest.approx(0.9), "moved": pytest.approx(0, abs=1e-6)}
    assert found["asked"]["model"] == asked_of
    assert "Without a predictor: give --predictor RUN" in notes


@pytest.mark.parametrize(("persona", "prompts"), [("without", 30), ("with", 60), ("both", 90)])
def test_personas(survey: PreparedSurvey, persona: str, prompts: int) -> None:
    with model_server(well_behaved) as running:
        wishes = ["--survey", survey.path, "--model", f"{running.address}#small"]
        out, _ = call(*wishes, "--persona", persona, "--format", "json")
        assert len(running.asked) == prompts + 1  # one asks how to ask
    methods = [method["method"] for method in json.loads(out)["methods"]]
    assert ("model" in methods, "model-as-group" in methods) == (
        persona != "with",
        persona != "without",
    )


def test_a_model_on_this_machine(survey: PreparedSurvey, tmp_path: Path) -> None:
    path = save_causal_model(tmp_path / "tiny")
    wishes = ["--survey", survey.path, "--model", path, "--group", "North", "--questions", "3"]
    out, _ = call(*wishes, "--format", "json")
    found = json.loads(out)
    assert found["model"] == "tiny"
    assert found["methods"][0]["groups"]["North"]["questions"] == 3
    assert call(*wishes, "--format", "json")[0] == out
    assert "after the prompt, without a template" in out


@pytest.mark.slow
def test_a_model_that_does_not_choose_fails_after_its_table(survey: PreparedSurvey) -> None:
    def sulking(request: Request) -> Reply:
        return Reply({"choices": [{"message": {"content": "I would rather not."}}]})

    arguments = ["judge", "--survey", str(survey.path), "--persona", "without"]
    with model_server(sulking) as running:
        wish = ["--model", f"{running.address}#small"]
        done = CliRunner().invoke(app, [*arguments, *wish])
    assert done.exit_code == 1
    assert "named no option in its answers to all 12 questions" in str(done.exception)

    def shy(request: Request) -> Reply:
        if any(question.text in request.prompt for question in YES_NO[:2]):
            listed = [{"token": "Well", "logprob": -0.1}]
            return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})
        return well_behaved(request)

    with model_server(shy) as running:
        done = CliRunner().invoke(app, [*arguments, "--model", f"{running.address}#small"])
    assert done.exit_code == 1
    assert "North │        10 │" in done.stdout
    assert "North: for 2 of 12 questions the model named no option" in done.stdout
    assert "too many questions of North (2 of 12), South (2 of 12)" in str(done.exception)


def test_little_of_what_it_says_is_an_option(survey: PreparedSurvey) -> None:
    def wordy(request: Request) -> Reply:
        listed = [{"token": letter, "logprob": -4.0} for letter in "ABC"]
        return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})

    with model_server(wordy) as running:
        out, _ = call("--survey", survey.path, "--model", f"{running.address}#small")
    assert "WARNING, model: only 4.8% of its answers name an option" in out
    assert "not among the tokens" not in out


def test_letters_that_are_not_listed_are_counted(survey: PreparedSurvey) -> None:
    def brief(request: Request) -> Reply:
        listed = [{"token": "A", "logprob": -0.1}]
        return Reply({"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]})

    with model_server(brief) as running:
        out, _ = call("--survey", survey.path, "--model", f"{running.address}#small")
    # A half of the letters of 12 prompts, and two thirds of those of 18.
    assert "model: 60.0% of the letters are not among the tokens that the server lists" in out


def test_a_key_is_nowhere(survey: PreparedSurvey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.KEY_VARIABLE, "sk-secret-1234")
    with model_server(well_behaved) as running:
        out, err = call("--survey", survey.path, "--model", running.address)
        assert running.asked[-1].headers["Authorization"] == "Bearer sk-secret-1234"
    kept = b"".join(file.read_bytes() for file in Path("runs").iterdir())
    assert "sk-secret" not in out + err
    assert b"sk-secret" not in kept


def test_tasks_are_written_without_a_model(survey: PreparedSurvey) -> None:
    _, err = call("--survey", survey.path, "--export", "tasks")
    assert "pluralllm_changes, pluralllm_changes_persona in tasks" in err
    assert "The directory holds the groups' answers. Licence of the data: none" in err
    assert Path("tasks", "pluralllm_changes.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --model to judge one, --export to write tasks, or both"),
        (["--model", "x", "--format", "jsn"], "did you mean 'json'"),
        (["--model", "x", "--persona", "wit"], "did you mean 'with'"),
        (["--model", "x", "--samples", "3"], "--samples is for a model behind an API"),
    ],
)
def test_a_mistyped_command_ends_with_2(
    survey: PreparedSurvey, arguments: list[str], said: str
) -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["judge", "--survey", str(survey.path), *arguments]
    )
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "ftp://host"], "an address begins with http:// or https://"),
        (["--model", "./none"], "is not a directory: check --model"),
        (["--export", "t", "--group", "Nort"], "did you mean 'North'"),
        (["--export", "t", "--predictor", "./none"], "is no directory"),
    ],
)
def test_mistakes_are_named(survey: PreparedSurvey, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        call("--survey", survey.path, *arguments)
    with pytest.raises(UserError, match="does not exist"):
        call("--survey", "nowhere", "--export", "t")
