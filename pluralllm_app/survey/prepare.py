"""From a source to a prepared survey on disk, with a report of what was kept."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Description, SurveyContent
from pluralllm_app.survey.descriptions import WISHES, described, embed_descriptions
from pluralllm_app.survey.embedders.alike import alike_options
from pluralllm_app.survey.embedders.registry import EMBEDDERS, load_embedder
from pluralllm_app.survey.embedders.unfinished import remove_unfinished
from pluralllm_app.survey.info import METRICS, ORDINAL_METRICS
from pluralllm_app.survey.one_sided import one_sided
from pluralllm_app.survey.prepared import PreparedSurvey, check_output, write_survey
from pluralllm_app.survey.role_assignment import named_roles, split_roles
from pluralllm_app.survey.sources.doubtful_texts import doubts
from pluralllm_app.survey.sources.registry import read_source
from pluralllm_app.survey.sources.stated import Stated


def prepare(
    source: str,
    out: Path,
    *,
    embedder: str = "hashing",
    template: str | None = None,
    file: Path | None = None,
    stated: Stated | None = None,
    train: Sequence[str] = (),
    evaluation: Sequence[str] = (),
    evaluation_fraction: float | None = None,
    min_questions: int = 30,
    descriptions: str = "names",
    metric: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console,
) -> PreparedSurvey:
    """Read `source`, choose groups, embed their questions, and write the survey to `out`.

    The groups named in `train` and `evaluation` take part. If none is named, a seeded split by
    `evaluation_fraction` decides, and without a fraction the source's own choice, if it has one.
    `stated` is what the user knows of `file` and it does not say itself; its encoding is also that
    of a table of `descriptions`.
    What `descriptions` means is said by `described`. Without a `metric`, the source's own is taken.

    Every mistake is reported before the embedding starts. If the embedding is interrupted, the same
    call continues it: the finished part is kept beside `out` in a hidden directory, which is
    removed when the survey has been written.

    Raises:
        SurveyError: something about the source, the names, the embedder or `out` is wrong.
    """
    if (train or evaluation) and evaluation_fraction is not None:
        raise SurveyError("pass either --train and --evaluation or --evaluation-fraction, not both")
    if metric is not None and metric not in METRICS:
        raise SurveyError(f"unknown metric {metric!r}: {did_you_mean(metric, METRICS)}")
    check_output(out, overwrite)
    if embedder not in EMBEDDERS:
        console.print("Loading the embedder ...")
    embedding = load_embedder(embedder, template)
    started = time.perf_counter()
    stated = stated or Stated()
    of_source = stated if file or descriptions in WISHES else replace(stated, encoding=None)
    survey = read_source(source, file, seed, of_source)
    metric = survey.metric if metric is None else metric
    if metric in ORDINAL_METRICS:
        survey = survey.ordinal(metric)
    if not len(survey.questions):
        raise SurveyError(f"no question is left to prepare; left out: {_reasons(survey)}")
    counts = survey.answers.counts()
    try:
        roles = _roles(survey, counts, train, evaluation, evaluation_fraction, min_questions, seed)
    except SurveyError as error:
        if reasons := _reasons(survey):
            error.add_note(f"Left out of the source before that: {reasons}.")
        raise
    survey = survey.restricted(list(roles))
    survey.questions.check()
    notes: list[str] = []
    texts = described(survey, roles, descriptions, stated.encoding, notes)
    vectors = embed_descriptions(embedding, embedder, texts)
    left_out = survey.dropped | _left_out(counts, roles, min_questions)
    line = _understood(survey, vectors, len(roles), notes)
    console.print(line, soft_wrap=True, highlight=False, markup=False)
    for doubt in [*doubts(survey), *one_sided(survey)]:
        warn(doubt, console)
    read = time.perf_counter()
    unfinished = out.resolve().with_name(f".{out.resolve().name}.unfinished")
    embeddings = embedding.embed(survey.questions, console, unfinished)
    alike = alike_options(survey.questions, embeddings, embedder)
    embedded = time.perf_counter()
    prepared = write_survey(
        out,
        name=survey.name,
        metric=metric,
        embedder=embedding.name,
        template=embedding.template,
        source=survey.source,
        licence=survey.licence,
        questions=survey.questions,
        embeddings=embeddings,
        answers=survey.answers,
        roles=roles,
        descriptions=vectors,
        synthetic=survey.synthetic,
        overwrite=overwrite,
    )
    remove_unfinished(unfinished)
    written = time.perf_counter()
    _report(prepared, survey, left_out, console)
    if alike:
        warn(alike, console)
    console.print(
        f"{read - started:.1f} s reading, {embedded - read:.1f} s embedding, "
        f"{written - embedded:.1f} s writing"
    )
    return prepared


def warn(text: str, console: Console) -> None:
    console.print(f"[bold yellow]Warning:[/] {escape(text)}", soft_wrap=True, highlight=False)


def _reasons(survey: SurveyContent) -> str:
    """What the source left out, and why."""
    return ", ".join(f"{count:,} {reason}" for reason, count in survey.dropped.items() if count)


def _roles(
    survey: SurveyContent,
    counts: Mapping[str, int],
    train: Sequence[str],
    evaluation: Sequence[str],
    evaluation_fraction: float | None,
    min_questions: int,
    seed: int,
) -> dict[str, str]:
    """Return the role of each group that takes part, as the docstring of `prepare` says."""
    if train or evaluation:
        train = [clean_text(name) for name in train]
        evaluation = [clean_text(name) for name in evaluation]
        return named_roles(counts, train, evaluation, min_questions)
    if evaluation_fraction is None and survey.train:
        return named_roles(counts, survey.train, survey.evaluation, min_questions)
    fraction = survey.evaluation_fraction if evaluation_fraction is None else evaluation_fraction
    return split_roles(counts, fraction, min_questions, seed)


def _left_out(
    counts: Mapping[str, int], roles: Mapping[str, str], min_questions: int
) -> dict[str, int]:
    """How many groups take no part, by reason, and how many answers of theirs."""
    others = [count for name, count in counts.items() if name not in roles]
    few = sum(count < min_questions for count in others)
    return {
        f"groups that answer fewer than {min_questions} questions": few,
        "other groups, not chosen": len(others) - few,
        "answers of these groups": sum(others),
    }


def _report(
    prepared: PreparedSurvey,
    survey: SurveyContent,
    left_out: Mapping[str, int],
    console: Console,
) -> None:
    groups = Table("group", "role", "questions", title=f"{prepared.name}: groups")
    groups.columns[2].justify = "right"
    for group in sorted(prepared.groups, key=lambda group: (group.role != "train", group.name)):
        groups.add_row(escape(group.name), group.role, f"{group.questions:,}")
    console.print(groups)
    kept = Table("", "count", title="Kept and left out")
    kept.columns[1].justify = "right"
    kept.add_row("questions kept", f"{len(survey.questions):,}")
    kept.add_row("options kept (embedding rows)", f"{len(prepared.embeddings):,}")
    kept.add_row("answers kept (group and question)", f"{len(survey.answers):,}")
    for reason, count in left_out.items():
        if count:
            kept.add_row(escape(f"left out: {reason}"), f"{count:,}")
    console.print(kept)
    written = f"Survey written to {prepared.path}"
    rights = f"Source: {prepared.source}\nLicence: {prepared.licence}"
    console.print(f"{written}\n{rights}", soft_wrap=True, markup=False)


def _understood(
    survey: SurveyContent,
    descriptions: Mapping[str, Description],
    groups: int,
    notes: Sequence[str],
) -> str:
    """One line on what the source was understood to say, with `notes` on a table that describes."""
    asked = survey.answers.respondents
    known = 0 if asked is None else int((~np.isnan(asked)).sum())
    answers = len(survey.answers)
    counts = (groups, "group"), (len(survey.questions), "question"), (answers, "answer")
    parts = [", ".join(many(count, noun) for count, noun in counts)]
    parts += [survey.note] if survey.note else []
    parts.append(
        "respondents not known"
        if not known
        else f"respondents known for {'all' if known == answers else f'{known:,}'} answers"
    )
    texts = [own.text for own in descriptions.values()]
    if texts:
        named = sum(
            own.text == survey.names.get(group, group) for group, own in descriptions.items()
        )
        alone = f", {named:,} of them by name alone" if 0 < named < len(texts) else ""
        parts.append(f"{many(len(texts), 'group')} described{alone}, the first as {texts[0]!r}")
        if notes:
            parts.append(f"the table of descriptions: {', '.join(notes)}")
    else:
        parts.append("no group described")
    return "Understood: " + "; ".join(parts)
