"""A round of factors against option rows and groups: seconds of both halves, bytes, peak memory.

    python benchmarks/factors.py --rows 10000 --groups 10
    python benchmarks/factors.py --rows 100000 --groups 10
    python benchmarks/factors.py --rows 10000 --groups 1000

Questions of four options, whose embeddings and answers are random: what a round costs depends on
their number alone. Both halves are in this one process, without messages. The first rounds have no
memory of an earlier one; the second is timed.
"""

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from measuring import paper_settings, parse, publish, seconds

from pluralllm_app.learning.base import Contribution, Request, State
from pluralllm_app.learning.factors import FactorsLearner
from pluralllm_app.preferences import PreferenceSet, QuestionSet

OPTIONS = 4


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--rows", type=int, default=10_000, help="options of all"),
            parser.add_argument("--groups", type=int, default=10, help="that train"),
            parser.add_argument("--answered", type=int, default=500, help="questions of a group"),
            parser.add_argument("--dim", type=int, default=384, help="of the embeddings"),
        ),
    )
    questions = make_questions(arguments.rows // OPTIONS, arguments.dim)
    settings = paper_settings(**{"predictor": "factors", "train-groups-per-round": 0})
    server = FactorsLearner(settings, lambda: questions, arguments.groups)
    states: list[State] = []
    start_up = seconds(lambda: states.append(server.initial_state()))
    group = FactorsLearner(settings, lambda: questions)
    spent: list[float] = []
    sent = 0

    def contributions(number: int, memory: Path) -> Iterator[Contribution]:
        nonlocal sent
        for index in range(arguments.groups):
            answers = make_answers(questions, arguments.answered, index)
            request = Request(number, False, "0" * 32, number - 1, server.options())
            found: list[Contribution] = []
            spent.append(
                seconds(
                    lambda answers=answers, request=request, index=index, found=found: found.append(
                        group.contribute(
                            states[-1].sent, answers, request, memory / f"group-{index}"
                        )
                    )
                )
            )
            sent = sum(array.nbytes for array in found[0].arrays.values())
            yield found[0]

    with tempfile.TemporaryDirectory() as directory:
        for number in (1, 2):
            spent.clear()
            whole = seconds(
                lambda number=number: states.append(
                    server.combine(number, states[-1], contributions(number, Path(directory)))
                )
            )
    publish(
        "factors",
        {
            "option rows": len(questions.embeddings),
            "groups": arguments.groups,
            "questions that a group answers": arguments.answered,
            "server: text features, once, s": start_up,
            "a group's half of a round, ms": 1e3 * median(spent),
            "server's half of a round, s": whole - sum(spent),
            "MB that a group sends": sent / 1e6,
            "MB that a group is sent": sum(a.nbytes for a in states[-1].sent.values()) / 1e6,
            "peak MiB of this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
        arguments.json,
    )


def make_questions(count: int, dim: int) -> QuestionSet:
    """Questions with random embeddings, of which those of one question are alike."""
    rng = np.random.default_rng(0)
    embeddings = np.empty((count * OPTIONS, dim), np.float16)
    for part in np.array_split(np.arange(count), max(1, count // 1000)):
        base = np.repeat(rng.normal(size=(len(part), dim)), OPTIONS, axis=0)
        rows = slice(part[0] * OPTIONS, (part[-1] + 1) * OPTIONS)
        embeddings[rows] = base + rng.normal(size=base.shape)
    return QuestionSet(
        embeddings=embeddings,
        questions=np.arange(count),
        first_rows=np.arange(count) * OPTIONS,
        options=np.full(count, OPTIONS),
    )


def make_answers(questions: QuestionSet, count: int, group: int) -> PreferenceSet:
    """A group's random answers to random questions."""
    rng = np.random.default_rng(group + 1)
    chosen = np.sort(rng.permutation(len(questions))[:count])
    return PreferenceSet(
        embeddings=questions.embeddings,
        questions=chosen,
        first_rows=questions.first_rows[chosen],
        options=questions.options[chosen],
        group=f"group {group}",
        shares=rng.dirichlet(np.ones(OPTIONS), len(chosen)).ravel().astype(np.float32),
    )


if __name__ == "__main__":
    main()
