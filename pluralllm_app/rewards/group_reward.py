"""A group's predicted answers as a reward for a language model's completions."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards.asked import Asked, Predictions
from pluralllm_app.rewards.choices import choice
from pluralllm_app.rewards.counts import SCORED, UNASKED, Counts
from pluralllm_app.rewards.free_text import FreeText
from pluralllm_app.rewards.rollouts import Rollout, rollouts
from pluralllm_app.scoring.metrics import js_alignment
from pluralllm_app.use.group import Group

Form = Literal["share", "distribution", "match", "text"]
Rewards = list[float | None]


class GroupReward:
    """Scores completions by what a group is predicted to prefer, as a reward function of TRL.

    Forms:
        share: the predicted share of the option that the completion names, 0 to 1. A policy that
            is rewarded by it learns to give the most popular answer, always.
        distribution: 1 - the Jensen-Shannon distance between what all samples of a prompt answer
            and what the group is predicted to, 0.167 to 1. All samples of a prompt get the same
            reward, which trainers that compare them, as GRPO does, learn nothing from.
        match: the predicted share of the option that the completion names, less the part of the
            prompt's other samples that name it too, -1 to 1. It is above 0 for what the policy
            answers too rarely, so that it learns the group's distribution: this is the gradient of
            the squared distance between the two, however few the samples. A sample without others
            earns its share.
        text: the predicted share of the option whose embedding is nearest to the completion's.

    A completion that names no option or several has no reward, None, and is counted. Trainers that
    take no None need `unread`, and so does a policy that is to learn to answer in form: what has no
    reward is neither praised nor blamed.

    >>> reward = GroupReward(predictor.group(answers, name="North"))
    >>> reward([rendered(question)] * 3, ["A", "B. No", "Well ..."])
    [0.71, 0.29, None]
    """

    def __init__(self, group: Group, form: Form = "share", unread: float | None = None) -> None:
        """Make a reward.

        Args:
            group: of `Predictor.group`, with answers or a description.
            form: see above.
            unread: the reward of a completion that names no option or several, as 0.0.

        Raises:
            AnswersError: nothing is known of the group, or `unread` is no finite number.
            PredictorError: the form is `text`, and the survey's embedder is not loaded here.
        """
        if form not in get_args(Form):
            raise ValueError(f"{form!r} is no form: known are {', '.join(get_args(Form))}")
        if unread is not None and not math.isfinite(unread):
            raise AnswersError(f"unread is {unread!r}: give a number, as 0, or None")
        described = group.context.description is not None and group.model.heeds_descriptions
        if not group.answered and not described:
            raise AnswersError(
                f"nothing is known of {group.name!r}, so that it would be rewarded what all groups "
                "like on average: give some of its answers, or a description"
            )
        self.group = group
        self.form: Form = form
        self.unread = unread
        self.counts = Counts()
        self.__name__ = group.name
        self._predictions = Predictions(group)
        self._free_text = FreeText(group.survey) if form == "text" else None

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        question_id: Sequence[Any] | None = None,
        question: Sequence[Any] | None = None,
        options: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **others: Any,
    ) -> Rewards:
        """Score completions.

        What a prompt asks is said by columns of the data, which trainers hand on: `question_id`, or
        `question` with `options` where the survey does not have it; or else by the prompt, in the
        form of `rendered`. `options` are in the order in which the prompt has them.

        Args:
            prompts: of each completion, a text or a list of messages.
            completions: likewise.
            question_id: of the survey; None for a prompt that asks no question.
            question: text of the question; None likewise.
            options: texts of its options.
            log_metric: TRL's, for the part of completions without a reward.
            log_extra: TRL's, for how ambiguous free texts are.
            others: columns that play no part here.

        Returns:
            A reward for each completion; None where it has none, or its prompt asks nothing.

        Raises:
            AnswersError: numbers differ, or what a prompt asks is not known.
            PredictorError: a new question cannot be embedded here, or this kind predicts none.
        """
        columns = {"question_id": question_id, "question": question, "options": options}
        rows = rollouts(prompts, completions, columns)
        asked = self._predictions.of(rows)
        if self._free_text is not None:
            rewards, reasons = self._by_text(self._free_text, rows, asked, log_metric, log_extra)
        else:
            rewards, reasons = self._by_option(rows, asked)
        for row, reason in enumerate(reasons):
            if reason not in (SCORED, UNASKED):
                rewards[row] = self.unread
        new = self.counts.add(reasons)
        if log_metric is not None and rows:
            log_metric(f"rewards/{self.__name__}/unscored", new.unscored / len(rows))
        return rewards

    def _by_option(
        self, rows: Sequence[Rollout], asked: Sequence[Asked | None]
    ) -> tuple[Rewards, list[str]]:
        rewards: Rewards = [None] * len(rows)
        reasons: list[str] = []
        samples: dict[str, list[tuple[int, int]]] = defaultdict(list)  # row and option, by prompt
        for row, (rollout, what) in enumerate(zip(rows, asked, strict=True)):
            if what is None:
                reasons.append(UNASKED)
                continue
            place, reason = choice(rollout.completion, what.question)
            reasons.append(reason)
            if place is not None:
                rewards[row] = float(what.shares[place])
                samples[rollout.prompt].append((row, place))
        if self.form != "share":
            for drawn in samples.values():
                what = asked[drawn[0][0]]
                assert what is not None
                chosen = np.array([option for _, option in drawn])
                found = (_matched if self.form == "match" else _aligned)(chosen, what.shares)
                for (row, _), reward in zip(drawn, found.tolist(), strict=True):
                    rewards[row] = reward
        return rewards, reasons

    def _by_text(
        self,
        free_text: FreeText,
        rows: Sequence[Rollout],
        asked: Sequence[Asked | None],
        log_metric: Callable[[str, float], None] | None,
        log_extra: Callable[[str, list[Any]], None] | None,
    ) -> tuple[Rewards, list[str]]:
        rewards: Rewards = []
        reasons: list[str] = []
        ambiguities: list[float | None] = []
        for rollout, what in zip(rows, asked, strict=True):
            place, ambiguity, reason = None, None, UNASKED
            if what is not None:
                place, ambiguity, reason = free_text.nearest(rollout.completion, what.question)
            rewards.append(None if place is None or what is None else float(what.shares[place]))
            ambiguities.append(ambiguity)
            reasons.append(reason)
        if log_extra is not None:
            log_extra(f"{self.__name__} ambiguity", ambiguities)
        known = [ambiguity for ambiguity in ambiguities if ambiguity is not None]
        if log_metric is not None and known:
            log_metric(f"rewards/{self.__name__}/ambiguity", float(np.mean(known)))
        return rewards, reasons

    def __repr__(self) -> str:
        return f"<reward {self.form!r} of {self.__name__!r}: {self.counts}>"


def _aligned(chosen: Ints, shares: Doubles) -> Doubles:
    """1 - JS distance between the answers drawn and `shares`, for each of them.

    Args:
        chosen: [n] option of each sample of one prompt.
        shares: [options] predicted.
    """
    answered = np.bincount(chosen, minlength=len(shares)) / len(chosen)
    return np.repeat(js_alignment(answered, shares, np.array([len(shares)])), len(chosen))


def _matched(chosen: Ints, shares: Doubles) -> Doubles:
    """Share of each answer, less the part of the other samples that give it; see `_aligned`."""
    others = np.bincount(chosen, minlength=len(shares))[chosen] - 1
    found: Doubles = shares[chosen] - others / max(len(chosen) - 1, 1)
    return found
