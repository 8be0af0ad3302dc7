"""How many completions a reward scores in a second of processor time, and the memory it takes.

    python benchmarks/rewards.py runs/first --threads 1

A batch has 64 prompts of 16 completions each, as a trainer's step has: letters, texts of options,
and some that name none. Groups are given 20 answers that their own predictor predicts.
"""

import resource
import sys
import time

from measuring import Results, parse, publish

from pluralllm_app.rewards import GroupReward, SeveralGroups, rendered
from pluralllm_app.use.predictor import Predictor

PROMPTS, SAMPLES, CONTEXT = 64, 16, 20


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("model"),
            parser.add_argument("--repeats", type=int, default=20),
        ),
    )
    predictor = Predictor.from_pretrained(arguments.model)
    questions = predictor.questions
    prompts, completions = [], []
    for place in range(PROMPTS):
        question = questions[place % len(questions)]
        for sample in range(SAMPLES):
            prompts.append(rendered(question))
            number = sample % len(question.options)
            option, letter = question.options[number], chr(ord("A") + number)
            said = (letter, option, f"({letter}) {option}.", f"The answer is {letter}.", "Hm ...")
            completions.append(said[(place + sample) % len(said)])
    known = questions[:: max(len(questions) // CONTEXT, 1)][:CONTEXT]
    answered = predictor.group().predict(known)
    answers = {each.question: list(each.shares.values()) for each in answered}

    def groups(count: int) -> list[GroupReward]:
        return [GroupReward(predictor.group(answers, name=f"{n}")) for n in range(count)]

    (one,) = groups(1)
    start = time.process_time()
    one(prompts, completions)
    results: Results = {
        "completions of a batch": len(completions),
        "ms of the first batch": 1e3 * (time.process_time() - start),
    }
    fresh = [f"{text}\n{number}" for number, text in enumerate(completions)]
    results["completions a second, one group"] = rate(one, prompts, completions, arguments.repeats)
    start = time.process_time()
    one(prompts, fresh)
    results["the same, none seen before"] = len(fresh) / (time.process_time() - start)
    match = GroupReward(one.group, "match")
    results["the same, form match"] = rate(match, prompts, completions, arguments.repeats)
    ten = SeveralGroups(groups(10), "adaptive-alpha")
    results["completions a second, ten groups"] = rate(ten, prompts, completions, arguments.repeats)
    scale = 1 if sys.platform == "darwin" else 1024
    results["peak memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20
    publish("rewards", results, arguments.json)


def rate(
    reward: GroupReward | SeveralGroups, prompts: list[str], completions: list[str], repeats: int
) -> float:
    """Completions a second, the batch being known."""
    reward(prompts, completions)
    start = time.process_time()
    for _ in range(repeats):
        reward(prompts, completions)
    return repeats * len(completions) / (time.process_time() - start)


if __name__ == "__main__":
    main()
