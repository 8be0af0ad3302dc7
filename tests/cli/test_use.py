"""The commands that use a trained predictor."""

import csv
import io
import json
from pathlib import Path

import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import UserError
from tests.support.command import CliRunner
from tests.support.used import FACTORS, OFTEN, QUESTIONS, YES_NO, make_survey, shares_of, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("used")
    survey = make_survey(place / "survey")
    return str(train(survey, place / "run", FACTORS | {"rounds": 4}))


@pytest.fixture
def answers(tmp_path: Path) -> str:
    file = tmp_path / "answers.csv"
    with file.open("w") as opened:
        writer = csv.writer(opened)
        writer.writerow(["question", "option", "share"])
        for question in YES_NO[:3]:
            for option, share in zip(question.options, shares_of(0.8, question), strict=True):
                writer.writerow([question.text, option, share])
    return str(file)


def call(*arguments: str, typed: str = "") -> tuple[str, str]:
    """Standard output and error of a command that goes well."""
    result = CliRunner().invoke(app, list(arguments), input=typed, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def test_bars(run: str, answers: str) -> None:
    out, err = call("predict", run, "--answers", answers, "--question", YES_NO[4].text)
    assert out.startswith("Shares with their 80% intervals")
    lines = out.split("\n\n", 1)[1].splitlines()
    assert lines[0] == YES_NO[4].text
    assert lines[1].split()[0] == "Yes"
    assert len(lines) == 3
    assert err == ""


def test_all_questions_without_a_name_and_what_rests_is_counted(run: str) -> None:
    out, err = call("predict", run)
    assert out.count("?") == 5
    assert "no answers were given" in err
    assert "And 7 more" in err


def test_csv_and_json_say_the_same(run: str, answers: str) -> None:
    table, _ = call("predict", run, "--answers", answers, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    records = json.loads(call("predict", run, "--answers", answers, "--format", "json")[0])
    assert [record["question_id"] for record in records] == [q.id for q in [*YES_NO[3:], *OFTEN]]
    flat = [option for record in records for option in record["options"]]
    assert [float(row["share"]) for row in rows] == [option["share"] for option in flat]
    assert [float(row["high_95"]) for row in rows] == [option["high_95"] for option in flat]
    assert not any(record["new"] for record in records)


def test_a_table(run: str, answers: str) -> None:
    arguments = ["--answers", answers, "--format", "table", "--question"]
    out, _ = call("predict", run, *arguments, "[red]?", "--option", "[b]a", "--option", "No")
    assert "80% interval" in out
    assert "[b]a" in out
    assert out.count("%") == 2 + 2 * 5


def test_a_new_question(run: str) -> None:
    asked = ["--question", "Is tea good?", "--option", "Yes", "--option", "No"]
    record = json.loads(call("predict", run, *asked, "--format", "json")[0])[0]
    assert record["new"]
    assert [option["option"] for option in record["options"]] == ["Yes", "No"]


def test_a_table_of_questions(run: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text(f"question,option\n{OFTEN[0].text},\nIs tea good?,Yes\nIs tea good?,No\n")
    out, _ = call("predict", run, "--questions", str(file), "--format", "json")
    assert [record["question"] for record in json.loads(out)] == [OFTEN[0].text, "Is tea good?"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--question", "Is tea good?"], "give it options to ask it as a new one"),
        (["--answers", "/none.csv"], "is not a file"),
    ],
)
def test_what_is_wrong_is_said(run: str, arguments: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        call("predict", run, *arguments)


def test_where_all_is_answered_nothing_is_left(run: str, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    with file.open("w") as opened:
        writer = csv.writer(opened)
        writer.writerow(["question", "option", "share"])
        for question in QUESTIONS:
            for option, share in zip(question.options, shares_of(0.8, question), strict=True):
                writer.writerow([question.text, option, share])
    for command, left in (("predict", "predict"), ("ask", "ask")):
        with pytest.raises(UserError, match=f"nothing is left to {left}: the group has answered"):
            call(command, run, "--answers", str(file))
    out, _ = call("predict", run, "--answers", str(file), "--question", YES_NO[0].text)
    assert out.count("?") == 1


def test_a_predictor_that_cannot_ask_says_so_before_it_wants_an_answer(tmp_path: Path) -> None:
    run = train(make_survey(tmp_path / "survey"), tmp_path / "run", {"predictor": "gpo"})
    with pytest.raises(UserError, match="does not know how uncertain it is"):
        call("ask", str(run))


def test_answers_to_misspelt_questions_are_refused(run: str, answers: str) -> None:
    file = Path(answers)
    file.write_text(file.read_text().replace("market", "markt"))
    for command in (["predict", run], ["ask", run, "--count", "1"]):
        with pytest.raises(UserError, match=r"did you mean 'Should the market change soon\?'"):
            call(*command, "--answers", answers)


def test_a_table_whose_numbers_are_not_clear(run: str, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    rows = [f"{OFTEN[0].text};{name};1.000" for name in OFTEN[0].options]
    file.write_text("\n".join(["question;option;count", *rows]))
    for command in (["predict", run], ["ask", run, "--count", "1"]):
        with pytest.raises(UserError, match="pass --decimal point if"):
            call(*command, "--answers", str(file))
        _, err = call(*command, "--answers", str(file), "--decimal", "comma")
        assert "dots between thousands" in err
    file.write_text(f"question_id;euros\n{QUESTIONS[0].id};1,5\n", encoding="utf-16-le")
    wishes = ["--of", str(file), "--cost", "euros", "--encoding", "utf-16-le"]
    out, _ = call("ask", run, *wishes, "--decimal", "comma", "--format", "json")
    assert json.loads(out)[0]["question_id"] == QUESTIONS[0].id


@pytest.mark.parametrize("command", ["predict", "ask", "serve"])
@pytest.mark.parametrize("wish", [("--decimal", "comma"), ("--encoding", "cp1252")])
def test_what_is_said_of_tables_needs_one(run: str, command: str, wish: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="are of a table, and none was given"):
        call(command, run, *wish)


def test_what_is_noted_of_questions_to_ask_is_said(run: str, tmp_path: Path) -> None:
    file = tmp_path / "of.csv"
    file.write_text(
        "question,option\nShould the markt change soon?,Yes\nShould the markt change soon?,No\n"
    )
    _, err = call("ask", run, "--of", str(file))
    assert "is nearly the survey's 'Should the market change soon?'" in err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["predict", "--format", "jsn"], "did you mean 'json'"),
        (["predict", "--option", "Yes"], "--option belongs to one --question"),
        (["predict", "--question", "a", "--questions", "b.csv"], "not both"),
        (["ask", "--interactive", "--format", "csv"], "leave --format out"),
        (["ask", "--cost", "euros"], "give both"),
    ],
)
def test_a_mistyped_command_ends_with_2(run: str, arguments: list[str], fault: str) -> None:
    command, *others = arguments
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, run, *others])
    assert (done.exit_code, fault in done.output) == (2, True), done.output


def test_nothing_drives_the_terminal(run: str) -> None:
    asked = ["--question", "a\x1b[31m?", "--option", "Y\x1b[2J", "--option", "N"]
    out, _ = call("predict", run, *asked)
    assert "\x1b" not in out
    assert "a\\x1b[31m?" in out
    with pytest.raises(UserError, match="is no directory"):
        call("predict", "/[/x]")


def test_tables_that_name_nothing_are_refused(run: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("question,option\n,Yes\n,No\n")
    for arguments in (["predict", run, "--questions"], ["ask", run, "--of"]):
        with pytest.raises(UserError, match="names no question"):
            call(*arguments, str(file))
    file.write_text(f"question_id,euros\n{QUESTIONS[0].id},1\n{QUESTIONS[0].id},9\n")
    with pytest.raises(UserError, match="data row 2 gives its question a second cost"):
        call("ask", run, "--of", str(file), "--cost", "euros")


def test_card(run: str) -> None:
    out, _ = call("card", run)
    assert "Licence of the data: none" in out
    assert "2 groups never trained on: mean 0." in out


def test_questions_to_ask(run: str, answers: str, tmp_path: Path) -> None:
    out, _ = call("ask", run, "--answers", answers, "--count", "2", "--format", "json")
    chosen = json.loads(out)
    assert len(chosen) == 2
    assert chosen[0]["explained"] < chosen[1]["explained"]
    file = tmp_path / "of.csv"
    table = "".join(f"{question.id},{1 + number}\n" for number, question in enumerate(QUESTIONS))
    file.write_text("question_id,euros\n" + table)
    wishes = ["--of", str(file), "--cost", "euros", "--count", "1", "--format", "csv"]
    found = csv.reader(io.StringIO(call("ask", run, *wishes)[0]))
    assert next(found) == ["question_id", "question", "option", "explained"]
    assert next(found)[0] in {question.id for question in QUESTIONS}
    assert "explained" in call("ask", run, "--count", "1")[0]


def test_a_conversation(run: str, tmp_path: Path) -> None:
    plan = json.loads(call("ask", run, "--count", "3", "--format", "json")[0])
    first, _, last = (each["options"] for each in plan)
    shares = {
        len(options): [110 - 10 * len(options), *[10] * (len(options) - 1)]
        for options in (first, last)
    }
    typed = [" ".join(map(str, shares[len(options)])) for options in (first, last)]
    lines = f"1 2 3 4 5 6\n{typed[0]}\n\n{typed[1]}\n"
    out, _ = call("ask", run, "--count", "3", "--interactive", typed=lines)
    assert "was given 6 numbers" in out
    assert "read as percentages" in out
    assert "What is predicted now" in out
    table = out[out.index("question_id,") :]
    file = tmp_path / "answers.csv"
    file.write_text(table)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["question_id"] for row in rows} == {plan[0]["question_id"], plan[2]["question_id"]}
    assert float(rows[0]["share"]) == pytest.approx(shares[len(first)][0] / 100)
    call("predict", run, "--answers", str(file))  # the table is one for --answers
    of = tmp_path / "of.csv"
    of.write_text("question,option\nIs tea good?,Yes\nIs tea good?,No\n")
    out, _ = call("ask", run, "--of", str(of), "--interactive", typed="70 30\n")
    file.write_text(out[out.index("question_id,") :])
    _, err = call("predict", run, "--answers", str(file))  # also of a new question alone
    assert "'Is tea good?' is none of the survey's and was read as a new one" in err
    out, _ = call(
        "ask", run, "--count", "1", "--interactive", typed="1,000 3,000\n600 1400 0 0\n\n"
    )
    assert "Write thousands without a sign between" in out


def test_what_was_typed_is_not_lost(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(call("ask", run, "--count", "1", "--format", "json")[0])[0]
    people = ["1000"] * len(first["options"])
    result = CliRunner().invoke(app, ["ask", run, "--interactive"], input=" ".join(people) + "\n")
    assert isinstance(result.exception, UserError)
    assert "the input has ended" in str(result.exception)
    assert "option,count" in result.stdout
    assert result.stdout.count(",1000\n") == len(people)
