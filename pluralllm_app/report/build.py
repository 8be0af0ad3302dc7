"""`pluralllm report`: read runs and comparisons, draw, write the page and the figures."""

import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import vl_convert
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.methods import Look
from pluralllm_app.report.charts import prediction_chart
from pluralllm_app.report.notices import notices
from pluralllm_app.report.page import PAGE_TITLE, Shown, render
from pluralllm_app.report.predictions import NoPredictionsError, Predictions, predict
from pluralllm_app.report.sections import draw
from pluralllm_app.report.sources import Sources, read_sources
from pluralllm_app.report.style import Spec, Style, config, looks

Say = Callable[[str], None]


def report(
    paths: Sequence[Path], out: Path, survey: Path | None, answers: bool, console: Console
) -> None:
    """Write the page `out` and the folder of its figures, and name both.

    Raises:
        UserError: anything the user can mend; the page is written last and whole.
    """
    out = out.expanduser().resolve()
    folder = out.with_name(f"{out.stem}-figures")
    with _progress(console) as (stage, say):
        stage("reading runs")
        sources = read_sources(paths)
        _check_output(out, folder)
        found, absent = None, None
        if answers:
            stage("predicting")
            found, absent = _predictions(sources, survey, say)
        stage("drawing")
        drawn = looks(sources.methods)
        sections = draw(sources, Style(drawn, page=True))
        _make_folder(folder)
        for file, spec in _files(sources, drawn, found).items():
            say(f"drawing {file}")
            _write_figure(folder / file, spec, drawn, found)
        stage("writing the page, and into it what draws there")
        chart = prediction_chart([], "", Style(drawn, page=True)) if found else None
        said = notices(sources)
        page = render(sources, said, sections, Shown(found, chart, absent), drawn)
        try:
            write_atomically(out, page.encode())
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}") from error
    for notice in said:
        console.print(notice, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for line in (
        f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)",
        f"Figures: {folder}",
        *(["It holds answers of the groups; --no-answers leaves them out."] if found else []),
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _check_output(out: Path, folder: Path) -> None:
    """Fail before the work where page or figures could not be written; writes nothing."""
    if out.is_dir():
        raise UserError(f"{out} is a directory: give --out a file, e.g. {out / 'report.html'}")
    if out.exists() and f"{PAGE_TITLE}</title>" not in out.read_text("utf-8", "replace"):
        raise UserError(f"{out} is there and no report: give another --out")
    for place in (folder, out.parent):
        there = next(path for path in (place, *place.parents) if os.path.exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UserError(
                f"cannot write {out}: {there} is no folder to write to: give another --out"
            )


def _make_folder(folder: Path) -> None:
    """Make the folder of figures; answers that an earlier report drew there go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawn in folder.glob("prediction.*"):
            drawn.unlink()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error


def _predictions(
    sources: Sources, survey: Path | None, say: Say
) -> tuple[Predictions | None, str | None]:
    """The predictions, or why there are none."""
    try:
        return predict(sources, survey, lambda done, all_: say(f"predicting, {done}/{all_}")), None
    except NoPredictionsError as error:
        return None, str(error)


def _files(
    sources: Sources, drawn: Mapping[str, Look], found: Predictions | None
) -> dict[str, Spec]:
    """Specifications of the charts that are written as files, by name without an ending."""
    style = Style(drawn, page=False)
    files = {chart.id: chart.spec for section in draw(sources, style) for chart in section.charts}
    if found and (spec := _first_question(found, style)):
        files["prediction"] = spec
    return files


def _first_question(found: Predictions, style: Style) -> Spec | None:
    """The chart the page opens with."""
    for group in found.content["groups"]:
        if group["answers"]:
            number, true, predicted, score = group["answers"][0]
            _, text, options = found.content["questions"][number]
            rows = [
                {"option": index, "text": option} | row
                for index, option in enumerate(options)
                for row in (
                    {"kind": "label"},
                    {"kind": "true", "share": true[index] / 1000},
                    {"kind": "predicted", "share": predicted[index] / 1000},
                )
            ]
            title = [
                *textwrap.wrap(text, 80, max_lines=4),
                f"{group['name']}, alignment score {score:.3f}",
            ]
            return prediction_chart(rows, title, style)
    return None


def _write_figure(
    file: Path, spec: Spec, drawn: Mapping[str, Look], found: Predictions | None
) -> None:
    look = drawn[found.method] if found else None
    spec = spec | {"config": config(drawn, dark=False, predicted=look) | {"background": "white"}}
    try:
        file.with_name(f"{file.name}.svg").write_text(vl_convert.vegalite_to_svg(spec), "utf-8")
        file.with_name(f"{file.name}.png").write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Say, Say]]:
    """Shows what is being done: a stage, which a log also gets a line of, or a part of one."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def say(text: str) -> None:
            progress.update(task, description=text)

        def stage(text: str) -> None:
            say(text)
            if not console.is_terminal:  # where no spinner is to be seen
                console.print(f"{text[0].upper()}{text[1:]} ...")

        yield stage, say
