"""Let a policy answer several times, and keep the answer that groups are predicted to like best.

    python examples/best_of_n.py                  # trains a predictor first
    python examples/best_of_n.py runs/first       # uses a run on the demo survey

The policy is a tiny one that is made on the spot and answers at random, see tiny_policy.py. Groups
fare by how many of their people truly give the answer that is kept; with one answer, and with the
best of several, means of all seeds. Each question is asked once, so adaptive-alpha has a past from
the second question on.
"""

import argparse

import numpy as np
import torch
from aligning import HEADER, Fared, Setting, make_setting, row
from tiny_policy import make_policy

from pluralllm_app.rewards import rendered
from pluralllm_app.use.prompts import chosen

RULES = ("mean", "min", "adaptive-alpha")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=40)
    options = parser.parse_args()
    setting = make_setting(options.run, options.questions)
    answers = [draw(setting, seed, options.n) for seed in range(options.seeds)]
    print(f"\n{len(setting.groups)} groups, {options.questions} questions, best of {options.n}\n")
    print(HEADER)
    for rule in RULES:
        print(row(f"{rule}, share", [keep(setting, rule, drawn) for drawn in answers]))


def draw(setting: Setting, seed: int, n: int) -> list[list[str]]:
    """`n` completions for each question."""
    policy, tokenizer = make_policy(setting.questions, seed)
    prompts = tokenizer(
        [rendered(each) for each in setting.questions], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        texts = policy.generate(**prompts, do_sample=True, num_return_sequences=n, max_new_tokens=2)
    new = texts[:, prompts["input_ids"].shape[1] :]
    found = tokenizer.batch_decode(new, skip_special_tokens=True)
    return [found[start : start + n] for start in range(0, len(found), n)]


def keep(setting: Setting, rule: str, drawn: list[list[str]]) -> tuple[float, Fared, float, Fared]:
    """The reward and how groups fare with the first answer to each question, and the best one."""
    reward = setting.reward(rule, "share")
    scores, best = [], []
    for question, texts in zip(setting.questions, drawn, strict=True):
        prompt = rendered(question)
        scores.append(reward([prompt] * len(texts), texts))
        best.append(int(np.argmax(scores[-1])))
        # What counts as the groups' past is the answer that is kept, and not all that were tried.
        reward.history.calls.pop()
        reward([prompt], [texts[best[-1]]])
    first = [0] * len(best)
    found: list[float | Fared] = []
    for places in (first, best):
        kept = [each[place] for each, place in zip(scores, places, strict=True)]
        texts = [each[place] for each, place in zip(drawn, places, strict=True)]
        found += [float(np.mean(kept)), fared(setting, texts)]
    return tuple(found)  # type: ignore[return-value]


def fared(setting: Setting, texts: list[str]) -> Fared:
    """The part of each group that gives these answers; 0 for one that cannot be read."""
    options = [chosen(text, each) for text, each in zip(texts, setting.questions, strict=True)]
    return Fared.of(
        [
            float(
                np.mean(
                    [
                        0.0 if option is None else shares[option]
                        for option, shares in zip(options, true, strict=True)
                    ]
                )
            )
            for true in setting.true.values()
        ]
    )


if __name__ == "__main__":
    main()
