"""From a table of questions, or a map of a file's variables, to a questionnaire on disk."""

from pathlib import Path

from rich.console import Console

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.alike import alike_options
from pluralllm_app.survey.embedders.registry import load_embedder
from pluralllm_app.survey.embedders.unfinished import remove_unfinished
from pluralllm_app.survey.info import METRICS, ORDINAL_METRICS
from pluralllm_app.survey.microdata.draft import draft_map
from pluralllm_app.survey.microdata.files import STATISTICS, open_microdata
from pluralllm_app.survey.microdata.mapping import read_map
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.prepare import warn
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.questionnaire import (
    checked_place,
    make_questionnaire,
    write_questionnaire,
)
from pluralllm_app.survey.shared import About, fingerprint
from pluralllm_app.survey.sources.question_table import read_question_table
from pluralllm_app.survey.sources.stated import Stated
from pluralllm_app.survey.sources.table_files import bare_name


def questionnaire_of(
    source: Path,
    out: Path,
    *,
    embedder: str | None,
    template: str | None,
    metric: str | None,
    stated: Stated,
    console: Console,
) -> PreparedSurvey:
    """Write the questionnaire of a prepared survey, or of a table of questions, to `out`.

    Args:
        source: the directory of the survey, which has its embeddings already, or the table, or a
            map of the variables of a file.
        out: the directory to write.
        embedder: of a table; None: hashing.
        template: of a transformers model.
        metric: of alignment; None: jensen-shannon.
        stated: what the user knows of a table and it does not say itself.
        console: where to say what is done.

    Raises:
        SurveyError: something about the source, the embedder or `out` is wrong, or something is
            stated that a prepared survey says itself.
    """
    checked_place(out)
    if source.is_dir():
        given = {"embedder": embedder, "template": template, "metric": metric, **vars(stated)}
        if surplus := [name for name, value in given.items() if value is not None]:
            raise SurveyError(
                f"{source} is a prepared survey, which says its {surplus[0]} itself: leave "
                f"--{surplus[0]} out"
            )
        return write_questionnaire(PreparedSurvey.open(source), out)
    metric = metric or METRICS[0]
    if metric not in METRICS:
        raise SurveyError(f"unknown metric {metric!r}: {did_you_mean(metric, METRICS)}")
    embedding = load_embedder(embedder or "hashing", template)
    notes: list[str] = []
    if source.suffix.lower() == ".toml":
        questions = read_map(source).content()
    elif source.suffix.lower() in STATISTICS:
        raise SurveyError(
            f"{source} has one row per person: make a draft of a map from it with --out "
            f"{source.stem}.toml, edit that, and make the questionnaire from it"
        )
    else:
        questions = read_question_table(source, stated, notes)
    if metric in ORDINAL_METRICS:
        _refuse_unordered(questions, metric)
    asked, options = many(len(questions), "question"), many(questions.counts.sum(), "option")
    said = "; ".join([f"{asked}, {options}", *notes])
    console.print(f"Understood: {said}", soft_wrap=True, highlight=False, markup=False)
    unfinished = out.resolve().with_name(f".{out.resolve().name}.unfinished")
    embeddings = embedding.embed(questions, console, unfinished)
    alike = alike_options(questions, embeddings, embedder or "hashing")
    about = About(
        survey=Path(bare_name(source)).stem,
        metric=metric,
        embedder=embedding.name,
        template=embedding.template,
        source=stated.source or f"table {source.name}",
        licence=stated.licence or "not stated",
        synthetic=False,
        fingerprint=fingerprint(questions, embeddings),
    )
    made = make_questionnaire(out, about, questions, embeddings)
    remove_unfinished(unfinished)
    if alike:
        warn(alike, console)
    return made


def write_draft(
    source: Path, out: Path, profile: str | None, stated: Stated, console: Console
) -> None:
    """Write a draft of a map from a file with one row per person.

    Args:
        source: the file.
        out: the draft, a file with the ending .toml.
        profile: the conventions of a survey, one of PROFILES; None: those of any.
        stated: what the user knows of the file and it does not say itself.
        console: where to say what is in the draft.

    Raises:
        SurveyError: the file cannot be read, or `out` is there already or cannot be written.
    """
    out = checked_place(out)
    data = open_microdata(source, stated)
    draft = draft_map(data, load_profile(profile), out)
    try:
        out.write_text(draft.text, "utf-8")
    except OSError as error:
        raise SurveyError(f"cannot write {out}: {error.strerror}") from error
    left_out = [f'"{why}" in {number:,}' for why, number in sorted(draft.left_out.items())]
    said = [many(draft.questions, "question")]
    said += [f"left out as no answers: {', '.join(left_out)}"] if left_out else []
    said += [f"no questions, it seems: {many(len(draft.skipped), 'variable')}"]
    console.print(
        f"{out}: a draft with {'; '.join([*said, *data.notes])}. Read and edit it: it says how",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    if draft.guessed:
        warn(
            f"The file does not declare them, but {', '.join(draft.guessed)} look like boxes of "
            "one question each, of which people may tick several: the draft has a [[set]] of "
            "them, with a comment. See whether that is right",
            console,
        )


def _refuse_unordered(questions: Questions, metric: str) -> None:
    for id_, values in zip(questions.ids, questions.values, strict=True):
        if values is None:
            raise SurveyError(
                f"question {id_!r} has no ordinal values, which {metric} needs: give it a value "
                "for each option, leave the question out, or leave --metric out"
            )
