"""Seconds until a predictor answers: loading it, a group's first question, one, and a thousand.

    python benchmarks/predicting.py runs/first

The group's answers are 20 that its own predictor gives, so that no survey is needed. Peak memory is
that of the whole process.
"""

import resource
import statistics
import sys
import time

from measuring import Results, parse, publish

from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question

CONTEXT, MANY = 20, 1000


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("model"),
            parser.add_argument("--repeats", type=int, default=50),
        ),
    )
    start = time.perf_counter()
    predictor = Predictor.from_pretrained(arguments.model)
    questions = predictor.questions
    results: Results = {
        "kind": predictor.model.kind,
        "questions": len(questions),
        "options": len(predictor.questionnaire.embeddings),
        "ms to load": 1e3 * (time.perf_counter() - start),
    }
    context = min(CONTEXT, len(questions) // 2)
    spread = questions[:: len(questions) // context][:context]
    uniform = {
        question: [1.0 / len(question.options)] * len(question.options) for question in spread
    }
    rest = [question for question in questions if question not in spread]
    many = [rest[number % len(rest)] for number in range(MANY)]

    start = time.perf_counter()
    group = predictor.group(uniform)
    group.predict(rest[0])
    results["ms of a new group's first question"] = 1e3 * (time.perf_counter() - start)
    results["ms of a question, the group cached"] = median_ms(
        lambda: group.predict(rest[1]), arguments.repeats
    )
    results["ms of a question by text"] = median_ms(
        lambda: group.predict(rest[1].id or ""), arguments.repeats
    )
    results[f"ms of {MANY:,} questions at once"] = median_ms(lambda: group.predict(many), 5)
    if predictor.texts.ready and predictor.survey.only is None:
        start = time.perf_counter()
        group.predict(Question("Is tea better than coffee?", ["Yes", "No"]))
        results["ms of the first new question"] = 1e3 * (time.perf_counter() - start)
        numbers = iter(range(10**6))
        results["ms of a further new question"] = median_ms(
            lambda: group.predict(Question(f"Is tea {next(numbers)} good?", ["Yes", "No"])), 20
        )
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    results["peak memory, MiB"] = peak / 2**20
    publish("predicting", results, arguments.json)


def median_ms(action: object, repeats: int) -> float:
    assert callable(action)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    main()
