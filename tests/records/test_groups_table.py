"""The table of groups: what is marked, and that names stay whole."""

from io import StringIO

from rich.console import Console

from pluralllm_app.records.groups_table import print_groups
from pluralllm_app.scoring.results import GroupResult, Role


def group(alignment: float, questions: int, role: Role = "evaluation") -> GroupResult:
    return GroupResult(role=role, alignment=alignment, loss=None, questions=questions)


def shown(
    first: dict[str, GroupResult], last: dict[str, GroupResult], width: int = 80
) -> tuple[dict[str, str], str]:
    """The rows by the first word of their names, and all that was printed."""
    output = StringIO()
    print_groups(first, last, Console(file=output, width=width))
    rows = [line.split("│") for line in output.getvalue().splitlines() if "│" in line]
    return {row[1].split()[0]: " ".join(row[2:]) for row in rows if row[1].strip()}, (
        output.getvalue()
    )


def test_groups_that_became_worse_or_are_scored_on_few_questions_are_marked() -> None:
    first = {"East": group(0.75, 40), "North": group(0.75, 40), "South": group(0.75, 19)}
    last = {"East": group(0.8, 40), "North": group(0.7499, 40), "South": group(0.8, 19)}
    rows, text = shown(first, last)
    assert rows["East"].split() == ["evaluation", "40", "0.7500", "0.8000"]
    assert rows["North"].split() == ["evaluation", "40", "0.7500", "0.7499*"]
    assert rows["South"].split() == ["evaluation", "19+", "0.7500", "0.8000"]
    assert "* worse than before training" in text
    assert "+ scored on fewer than 20 questions" in text
    assert "questions: on how many" not in text  # they are all that the group answered but context


def test_nothing_is_explained_that_is_not_there() -> None:
    last = {"East": group(0.8, 20), "New": group(0.5, 20)}
    rows, text = shown({"East": group(0.8, 20)}, last)
    assert rows["New"].split() == ["evaluation", "20", "-", "0.5000"]
    assert "*" not in text
    assert "+ scored" not in text


def test_the_questions_of_train_groups_are_explained() -> None:
    last = {"East": group(0.8, 20, "train")}
    assert "held out of its training" in " ".join(shown(last, last)[1].split())


def test_long_names_are_not_cut_in_a_word() -> None:
    names = ["Mecklenburg-Vorpommern und Brandenburg", "Llanfairpwllgwyngyllgogerychwyrndrobwll"]
    last = {name: group(0.8, 40) for name in names}
    for width in (40, 60, 80):
        text = shown(last, last, width)[1]
        for word in ("Mecklenburg-Vorpommern", "Brandenburg", names[1], "evaluation", "0.8000"):
            assert word in text
