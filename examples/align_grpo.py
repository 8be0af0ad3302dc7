"""Align a policy with many groups by TRL's GRPO: which group fares how, by each way to aggregate.

    python examples/align_grpo.py                          # trains a predictor first
    python examples/align_grpo.py runs/first               # uses a run on the demo survey
    python examples/align_grpo.py runs/first --policy Qwen/Qwen3-0.6B --learning-rate 1e-6

Without --policy a tiny one is made on the spot, which answers at random: see tiny_policy.py. The
column `reward` is the predicted share of the policy's answers, on average of its answers and of the
groups. Groups fare by how near the policy's answers are to what they truly answer, 1 - the
Jensen-Shannon distance. Both are before and after training, means of all seeds.
"""

import argparse
import os
import tempfile

import numpy as np
import torch
from aligning import HEADER, Fared, Setting, make_setting, row
from datasets import Dataset
from tiny_policy import answer_shares, make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from pluralllm_app import Question
from pluralllm_app.rewards import Form, rendered
from pluralllm_app.scoring.metrics import js_alignment

SAMPLES = 32  # of each question in a step
WAYS: list[tuple[str, Form]] = [
    ("mean", "match"),
    ("min", "match"),
    ("adaptive-alpha", "match"),
    ("mean", "share"),  # as a warning: the reward rises, and the groups fare worse
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--policy", help="of the Hugging Face hub, or a directory")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=6)
    options = parser.parse_args()
    setting = make_setting(options.run, options.questions)
    print(f"\n{len(setting.groups)} groups, {options.questions} questions, {options.seeds} seeds\n")
    print(HEADER, flush=True)
    for rule, form in WAYS:
        seeds = [align(setting, rule, form, seed, options) for seed in range(options.seeds)]
        print(row(f"{rule}, {form}", seeds), flush=True)
    means = [np.mean(shares, axis=0).tolist() for shares in zip(*predicted(setting), strict=True)]
    aim = fared(setting, means)
    print(
        "\nA policy that answers as groups are predicted to on average: groups' mean "
        f"{aim.mean:.3f}, worst group {aim.worst:.3f}"
    )


def align(
    setting: Setting, rule: str, form: Form, seed: int, options: argparse.Namespace
) -> tuple[float, Fared, float, Fared]:
    """Train a policy; returns its reward and how the groups fare, before and after."""
    questions = setting.questions
    if options.policy is None:
        policy, tokenizer = make_policy(questions, seed)
    else:
        # Updates are lost in the 8 bits of bfloat16, in which most models are saved.
        policy = AutoModelForCausalLM.from_pretrained(options.policy, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(options.policy, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    before = answer_shares(policy, tokenizer, questions)
    # A real policy takes gigabytes for as many texts as a tiny one goes through together.
    at_once = SAMPLES * len(questions) if options.policy is None else 8
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=[setting.reward(rule, form)],
            args=GRPOConfig(
                output_dir=out,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),
                seed=seed,
                max_steps=options.steps,
                learning_rate=options.learning_rate,
                per_device_train_batch_size=at_once,
                gradient_accumulation_steps=SAMPLES * len(questions) // at_once,
                num_generations=SAMPLES,
                scale_rewards="none",
                max_completion_length=1 if options.policy is None else 8,
                logging_strategy="no",
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows(questions)),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)  # it would print between the table's rows
        trainer.train()
    after = answer_shares(policy, tokenizer, questions)
    return (
        earned(setting, before),
        fared(setting, before),
        earned(setting, after),
        fared(setting, after),
    )


def rows(questions: list[Question]) -> list[dict[str, str | None]]:
    """The data: a prompt for each question, and which one it is."""
    return [{"prompt": rendered(each), "question_id": each.id} for each in questions]


def predicted(setting: Setting) -> list[list[list[float]]]:
    """Shares by group, then by question and option."""
    return [
        [list(answer.shares.values()) for answer in group.predict(setting.questions)]
        for group in setting.groups
    ]


def earned(setting: Setting, answers: list[list[float]]) -> float:
    """The predicted share of the policy's answers, on average."""
    pairs = [zip(answers, shares, strict=True) for shares in predicted(setting)]
    return float(np.mean([np.dot(*pair) for each in pairs for pair in each]))


def fared(setting: Setting, answers: list[list[float]]) -> Fared:
    """How near the policy's answers are to what each group truly answers."""
    given = np.concatenate(answers)
    lengths = np.array(list(map(len, answers)))
    return Fared.of(
        [
            float(js_alignment(given, np.concatenate(true), lengths).mean())
            for true in setting.true.values()
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
