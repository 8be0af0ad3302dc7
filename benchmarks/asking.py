"""How well new groups are predicted from questions chosen for them, and from ones drawn at random.

Half of a group's questions, drawn at random, may be asked; the other half is predicted. In turn: k
questions drawn at random; k questions that the predictor chooses, which it does before any answer
is known; and the first k of one fixed list for all groups, made greedily from the pooled answers of
the train groups (the columns that explain most of what is left of the others). Where the list has
too few, random ones follow.

    python benchmarks/asking.py runs/first --survey data/globalopinionqa --plot asking.png

With --whole any of a group's questions may be asked, and all others are predicted, as groups are
scored in runs. Intervals are those of a bootstrap over pairs of group and draw.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import altair as alt
import numpy as np
import vl_convert
from measuring import Results, parse, publish

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.segments import Doubles, Ints, segment_starts
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.asking import next_places
from pluralllm_app.use.predictor import Predictor

COUNTS = (1, 2, 5, 10, 20)
RESAMPLES = 2000  # of the bootstrap over groups and draws


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("run"),
            parser.add_argument("--survey", type=Path, required=True),
            parser.add_argument("--draws", type=int, default=5, help="halves of each group"),
            parser.add_argument(
                "--whole", action="store_true", help="all may be asked, and all others are wanted"
            ),
            parser.add_argument("--plot", type=Path, help="PNG to draw the curves to"),
        ),
    )
    survey = PreparedSurvey.open(arguments.survey)
    predictor = Predictor.from_pretrained(arguments.run)
    by_role = {
        role: [survey.preferences(group.name) for group in survey.groups if group.role == role]
        for role in ("train", "evaluation")
    }
    fixed = list(islice(fixed_list(by_role["train"], survey), 400))
    scores: dict[str, list[list[float]]] = {way: [] for way in ("random", "chosen", "fixed list")}
    for group in by_role["evaluation"]:
        for half in range(arguments.draws):
            rng = np.random.default_rng([half, len(scores["random"])])
            order = rng.permutation(len(group))
            may, wanted = np.split(order, [len(order) // 2])
            if arguments.whole:
                may = wanted = order
            known = set(group.questions[may].tolist())
            position = {int(question): place for place, question in enumerate(group.questions)}
            ways = {
                "random": may,
                "chosen": may[next_places(predictor.model, group, may, wanted, max(COUNTS))],
                "fixed list": np.array(
                    list(dict.fromkeys([*(position[q] for q in fixed if q in known), *may]))
                ),
            }
            for way, places in ways.items():
                scores[way].append(
                    [score(predictor, group, places[:count], wanted) for count in COUNTS]
                )
    results: Results = {"survey": survey.name, "groups": len(by_role["evaluation"])}
    for way, found in scores.items():
        by_group = np.array(found).reshape(-1, arguments.draws, len(COUNTS)).mean(1)
        for count, worst in zip(COUNTS, by_group.min(0).tolist(), strict=True):
            results[f"{way}, {count} questions, worst group"] = worst
    for way, found in scores.items():
        for count, column in zip(COUNTS, np.array(found).T, strict=True):
            results[f"{way}, {count} questions"] = told(column)
    if arguments.plot:
        arguments.plot.write_bytes(draw(scores))
    gain = np.array(scores["chosen"]) - np.array(scores["random"])
    for count, column in zip(COUNTS, gain.T, strict=True):
        results[f"chosen - random, {count} questions"] = told(column)
    publish("asking", results, arguments.json)


def score(predictor: Predictor, group: PreferenceSet, asked: Ints, wanted: Ints) -> float:
    """Mean alignment of what is predicted of the wanted questions."""
    task = group.task(np.sort(asked), np.setdiff1d(wanted, asked))
    found = predictor.model.predict(task.context, task.target).shares
    return float(
        (1 - np.sqrt(js_divergence(found, task.target.shares, task.target.options))).mean()
    )


def fixed_list(train: list[PreferenceSet], survey: PreparedSurvey) -> Iterator[int]:
    """Questions in the order in which they explain most of what the train groups differ by.

    Greedy choice of columns of the matrix [groups, rows] of root shares around their mean; what a
    group has not answered is at the mean.
    """
    every = survey.all_questions()
    y = np.full((len(train), len(every.embeddings)), np.nan)
    for row, group in zip(y, train, strict=True):
        row[group.rows] = np.sqrt(group.shares)
    answered = ~np.isnan(y)
    mean = np.nansum(y, axis=0) / np.maximum(answered.sum(axis=0), 1)
    left: Doubles = np.where(answered, y - mean, 0.0)
    starts = segment_starts(every.options)
    for _ in range(len(every)):
        # What a column explains of all others, summed over a question's columns.
        size = (left**2).sum(0)
        shared = (left * (left @ left.T @ left)).sum(0)
        explained = np.divide(shared, size, out=np.zeros(len(size)), where=size > 1e-9)
        gains = np.add.reduceat(explained, starts)
        best = int(np.argmax(gains))
        if gains[best] <= 1e-9:
            return
        yield best
        rows = starts[best] + np.arange(every.options[best])
        basis, size, _ = np.linalg.svd(left[:, rows], full_matrices=False)
        basis = basis[:, size > 1e-9]
        left = left - basis @ (basis.T @ left)


def interval(values: Doubles) -> tuple[float, float]:
    """The 95 % interval of the mean by its bootstrap."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def told(values: Doubles) -> str:
    """Mean and interval."""
    low, high = interval(values)
    return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"


def draw(scores: dict[str, list[list[float]]]) -> bytes:
    """Alignment against the number of questions, a line for each way."""
    points = [
        {"way": way, "questions": count, "mean": mean}
        for way, found in scores.items()
        for count, mean in zip(COUNTS, np.array(found).mean(0).tolist(), strict=True)
    ]
    scale = alt.Scale(type="log", domain=(COUNTS[0], COUNTS[-1]), nice=False)
    axis = alt.Axis(values=list(COUNTS), title="questions asked")
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("questions:Q", scale=scale, axis=axis),
        y=alt.Y("mean:Q", title="alignment on the others", scale=alt.Scale(zero=False)),
        color=alt.Color("way:N", title=None, legend=alt.Legend(orient="bottom")),
        shape=alt.Shape("way:N", legend=None),
    )
    marks = base.mark_line() + base.mark_point(filled=True, size=70, opacity=1)
    spec = marks.properties(width=420, height=280).to_dict()
    png: bytes = vl_convert.vegalite_to_png(spec, scale=1.5)
    return png


if __name__ == "__main__":
    main()
