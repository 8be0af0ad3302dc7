"""From a questionnaire and a file of one group's answers to its site."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Description
from pluralllm_app.survey.descriptions import described, embed_descriptions
from pluralllm_app.survey.embedders.names import is_same, place_of, shown
from pluralllm_app.survey.embedders.registry import EMBEDDERS, load_embedder
from pluralllm_app.survey.fitting import fitted, own_answers
from pluralllm_app.survey.microdata.content import Counted, count_people, needs_map
from pluralllm_app.survey.microdata.files import STATISTICS
from pluralllm_app.survey.microdata.ledger import LeftOut, by_reason, ledger_of, write_ledger
from pluralllm_app.survey.microdata.toplines import check_toplines
from pluralllm_app.survey.one_sided import one_sided
from pluralllm_app.survey.prepare import warn
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import checked_place
from pluralllm_app.survey.site import Site, make_site
from pluralllm_app.survey.sources.damaged_texts import refuse_damaged, refuse_hidden
from pluralllm_app.survey.sources.doubtful_texts import doubts
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table import read_long_table


def site_of(
    questionnaire: PreparedSurvey,
    group: str,
    out: Path,
    *,
    file: Path,
    role: str,
    descriptions: str,
    embedder: str | None,
    stated: Stated,
    check: Path | None,
    console: Console,
) -> Site:
    """Write the site of one group from a file of its answers to `out`.

    Args:
        questionnaire: or a survey, whose questions are used alone.
        group: its name; what the table says of other groups is left out.
        out: the directory to write.
        file: the table, or with a map in `stated` a file with one row per person.
        role: one of ROLES.
        descriptions: see `described`.
        embedder: the model that the questionnaire was embedded by, where its name is no place;
            None: by its name.
        stated: what the user knows of the table and it does not say itself.
        check: published shares, see `check_toplines`; None: none.
        console: where to say what is done.

    Raises:
        SurveyError: something about the table, the embedder or `out` is wrong, or the answers do
            not fit the questionnaire.
    """
    checked_place(out)
    questionnaire.verify()
    model = None if descriptions == "none" else _model(questionnaire, embedder)
    ledger = ledger_of(out) if stated.map is not None else None
    counted = _read(file, group, stated)
    content = counted.content
    refuse_damaged(content, str(file))
    refuse_hidden(content, str(file))
    own = own_answers(content, group)
    found = fitted(own, questionnaire.questions())
    agreement = [] if check is None else [check_toplines(own, check, stated)]
    name = clean_text(group)
    notes = [content.note] if content.note else []
    texts = described(content, [name], descriptions, stated.encoding, notes)
    notes += [*found.notes, *agreement]
    if others := len(content.answers.groups) - 1:
        notes.append(f"answers of {others:,} other groups in the file left out")
    console.print(f"Understood: {'; '.join(notes)}", soft_wrap=True, highlight=False, markup=False)
    for doubt in [*doubts(own), *one_sided(own)]:
        warn(doubt, console)
    _print_ledger(counted.left_out, console)
    description = _described(questionnaire, texts, model, console) if model else None
    site = make_site(questionnaire, name, role, found.answers, description, out)
    if ledger is not None:
        write_ledger(counted.left_out, ledger)
        console.print(f"What is left out: {ledger}", soft_wrap=True, highlight=False, markup=False)
    return site


def _read(file: Path, group: str, stated: Stated) -> Counted:
    if stated.map is not None:
        return count_people(file, stated, group)
    if file.suffix.lower() in STATISTICS:
        raise SurveyError(needs_map(file))
    stated.check("table", ("encoding", "decimal"))
    return Counted(read_long_table(file, stated, group), [])


def _print_ledger(left_out: Sequence[LeftOut], console: Console) -> None:
    if not left_out:
        return
    table = Table("left out", "questions", "people or answers", title="What is not in the shares")
    for reason, own in by_reason(left_out).items():
        questions = len({one.question for one in own if one.question})
        people = sum(one.people for one in own)
        table.add_row(escape(reason), f"{questions:,}" if questions else "all", f"{people:,}")
    console.print(table)


def _model(questionnaire: PreparedSurvey, embedder: str | None) -> str:
    """Return the embedder of the group's description, by the name that the user knows."""
    name = embedder or place_of(questionnaire.embedder)
    if name is None:
        raise SurveyError(
            f"the questionnaire was embedded by a local model ({shown(questionnaire.embedder)}), "
            "which has to embed the group's description as well, that is its name and what "
            "--descriptions adds: pass --embedder with the directory of that model, or "
            "--descriptions none"
        )
    return name


def _described(
    questionnaire: PreparedSurvey, texts: Mapping[str, str], model: str, console: Console
) -> Description:
    """Embed the description as the questions were."""
    if model not in EMBEDDERS:
        console.print("Loading the embedder ...")
    loaded = load_embedder(model, questionnaire.template)
    if not is_same(questionnaire.embedder, loaded.name):
        raise SurveyError(
            f"the embedder {model} is {shown(loaded.name)}, but the questionnaire was embedded by "
            f"{shown(questionnaire.embedder)}: pass the same model with --embedder, or "
            "--descriptions none"
        )
    ((_, description),) = embed_descriptions(loaded, model, texts).items()
    return description
