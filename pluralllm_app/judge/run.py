"""A language model judged: asked, put together, scored beside the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pluralllm_app.judge.answers import LETTERS_KIND, Model, distributions
from pluralllm_app.judge.asking import ask
from pluralllm_app.judge.beside import Setting
from pluralllm_app.judge.kept import KeptAnswers
from pluralllm_app.judge.verdict import Contender, Method, Verdict, judge

ITSELF, AS_GROUP = Method("model", "model"), Method("model-as-group", "as group")


@dataclass(frozen=True)
class Asked:
    """How a model's answers came about, for people to judge what its scores are worth."""

    method: Method
    named: float  # see `Distributions`
    moved: float
    silent: float | None  # see `Distributions`; None where answers are sampled


@dataclass(frozen=True)
class Judged:
    """A verdict on a model."""

    model: str
    verdict: Verdict
    way: str  # how its answers were had
    asked: Sequence[Asked]


def judge_model(
    model: Model,
    setting: Setting,
    personas: str,
    kept: KeptAnswers,
    watch: Callable[[int, int], None],
) -> Judged:
    """Ask a model and score it.

    Args:
        model: not asked for what is kept.
        setting: what it is asked, and what it is compared with.
        personas: one of PERSONAS: whether it answers as a member of each group, as itself, or both.
        kept: its answers so far.
        watch: see `asking.ask`.

    Raises:
        UserError: it cannot be had, stops to answer, or names no option for some group.
    """
    plan = setting.plan
    who: list[str | None] = [None] if personas != "with" else []
    who += list(plan.groups) if personas != "without" else []
    answers, kind = ask(model, list(plan.prompts(who)), kept, watch)
    found = distributions(answers)
    contenders, asked = [], []
    for method, own in (
        (ITSELF, {name: found[None] for name in plan.groups} if None in found else {}),
        (AS_GROUP, {name: found[name] for name in plan.groups if name in found}),
    ):
        if own:
            contenders.append(Contender(method, by_group=own))
            different = list({id(each): each for each in own.values()}.values())
            listed = kind == LETTERS_KIND
            asked.append(
                Asked(
                    method,
                    named=_mean([each.named for each in different]),
                    moved=_mean([each.moved for each in different]),
                    silent=_mean([each.silent for each in different]) if listed else None,
                )
            )
    verdict = judge(plan, [*contenders, *setting.beside])
    return Judged(model.name, verdict, model.way(kind), asked)


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
