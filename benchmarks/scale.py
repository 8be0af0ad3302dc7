"""Many groups: what a `pluralllm run` takes with 10, 100 and 1,000 of them.

    python benchmarks/scale.py --plot scale.png
    python benchmarks/scale.py --groups 10 100 --json scale.json

At most 100 groups train in a round, one step each. Three things are of all groups: the query with
which the server learns which node holds which group, with which the start-up ends (the first client
processes start meanwhile), and the evaluations in rounds 0 and last. Of the exchange that scores
round 0 and trains round 1, each has the part that is its share of the nodes' work. The survey is
random: 50 questions of 4 options, one in ten groups not trained.
"""

import tempfile
from pathlib import Path
from statistics import median

import altair as alt
import numpy as np
import vl_convert
from measuring import Results, parse, publish
from whole_run import KINDS, watch

from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.prepared import write_survey

QUESTIONS, OPTIONS = 50, 4
SETTINGS = (
    "train-groups-per-round=100 local-steps=1 evaluate-every=1000 evaluation-draws=1 "
    "checkpoint-every=1000"
)


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--groups", type=int, nargs="+", default=[10, 100, 1000]),
            parser.add_argument("--rounds", type=int, default=5),
            parser.add_argument("--dim", type=int, default=384, help="of the embeddings"),
            parser.add_argument("--plot", type=Path, help="PNG to draw the results to"),
        ),
    )
    rows = [measure(groups, arguments.rounds, arguments.dim) for groups in arguments.groups]
    results: Results = {
        f"{row['groups']} groups, {key}": value
        for row in rows
        for key, value in row.items()
        if key != "groups"
    }
    publish("scale", results, arguments.json)
    if arguments.plot:
        arguments.plot.write_bytes(draw(rows))


def measure(groups: int, rounds: int, dim: int) -> Results:
    """A run of `groups` groups; seconds and MiB."""
    survey = Path(tempfile.mkdtemp()) / "survey"
    write_random_survey(survey, groups, dim)
    run = watch(["--survey", str(survey), "-c", f"{SETTINGS} rounds={rounds}"])
    first, *plain, last = [entry["seconds"] for entry in run.rounds]
    return {
        "groups": groups,
        "start-up, s": run.start_up,
        "finding and asking all groups, of it, s": run.record["roster_seconds"],
        "scoring all groups in round 0, s": first,
        "a round without evaluation, s": median(plain),
        "the last round, with evaluation, s": last,
    } | {f"largest of {kind}, MiB": run.peaks[kind] / 2**20 for kind in KINDS.values()}


def write_random_survey(path: Path, groups: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"Group {number:04d}" for number in range(groups)]
    write_survey(
        path,
        name=f"{groups} random groups",
        metric="jensen-shannon",
        embedder="random",
        source="random numbers",
        licence="none",
        questions=Questions(
            ids=[f"q{number}" for number in range(QUESTIONS)],
            texts=[f"Question {number}?" for number in range(QUESTIONS)],
            options=[[f"Option {option}" for option in range(OPTIONS)]] * QUESTIONS,
            values=[None] * QUESTIONS,
        ),
        embeddings=rng.normal(size=(QUESTIONS * OPTIONS, dim)).astype(np.float16),
        answers=Answers(
            groups=names,
            group=np.repeat(np.arange(groups), QUESTIONS),
            question=np.tile(np.arange(QUESTIONS), groups),
            shares=rng.dirichlet(np.ones(OPTIONS), size=groups * QUESTIONS).ravel(),
        ),
        roles={
            name: "evaluation" if number % 10 == 9 else "train" for number, name in enumerate(names)
        },
        synthetic=True,
    )


def draw(rows: list[Results]) -> bytes:
    """Seconds and memory against groups, side by side, as a PNG."""

    legend = alt.Legend(orient="bottom", columns=2)

    def chart(unit: str, title: str) -> alt.LayerChart:
        points = [
            {"groups": row["groups"], "what": key.removesuffix(f", {unit}"), "value": value}
            for row in rows
            for key, value in row.items()
            if key.endswith(f", {unit}")
        ]
        base = alt.Chart(alt.Data(values=points)).encode(
            x=alt.X("groups:Q", title="groups", scale=alt.Scale(type="log")),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(type="log")),
            color=alt.Color("what:N", title=None, legend=legend),
            shape=alt.Shape("what:N", legend=None),
        )
        marks = base.mark_line() + base.mark_point(filled=True, size=60)
        return marks.properties(width=320, height=260)

    both = alt.hconcat(chart("s", "seconds"), chart("MiB", "peak MiB"))
    spec = both.resolve_scale(color="independent", shape="independent").to_dict()
    png: bytes = vl_convert.vegalite_to_png(spec, scale=1.5)
    return png


if __name__ == "__main__":
    main()
