"""Which questions to put to a new group: chosen by the predictor, against drawn at random.

The demo survey, data/demo in the working directory, plays the new group, which answers what it is
asked.

    python examples/ask_a_new_group.py              # trains first, which takes about a minute
    python examples/ask_a_new_group.py runs/first   # uses a run on the demo survey
"""

import random
import sys

import numpy as np
from quickstart import train

from pluralllm_app import Predictor, PreparedSurvey, Question

NEW = "Kelmara"  # a group that nobody trained on
COUNT = 5


def main() -> None:
    predictor = Predictor.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else train())
    true = true_answers(PreparedSurvey.open("data/demo"))
    answered = [question for question in predictor.questions if question.id in true]
    may_ask, wanted = answered[::2], answered[1::2]

    def score(asked: list[Question]) -> float:
        """How well the wanted answers are predicted from those to the questions asked."""
        group = predictor.group({question: true[question.id] for question in asked})
        return group.predict(wanted).alignment([true[question.id] for question in wanted])

    print(f"\nalignment before any question: {score([]):.3f}")
    chosen = [each.question for each in predictor.group().ask(COUNT, may_ask, wanted)]
    for number, question in enumerate(chosen, 1):
        print(f"{number} chosen: {score(chosen[:number]):.3f}   {question.text}")
    draws = [random.Random(seed).sample(may_ask, COUNT) for seed in range(20)]
    mean = sum(map(score, draws)) / len(draws)
    print(f"{COUNT} drawn at random: {mean:.3f} on average of {len(draws)} draws")


def true_answers(survey: PreparedSurvey) -> dict[str | None, list[float]]:
    """The group's shares by question id."""
    answers, ids = survey.preferences(NEW), survey.questions().ids
    shares = np.split(answers.shares, answers.starts[1:])
    return {
        ids[question]: each.tolist()
        for question, each in zip(answers.questions, shares, strict=True)
    }


if __name__ == "__main__":
    main()
