"""Rewards out of what groups of a federation truly answered, instead of what they are predicted to.

Only the numbers of the options that completions name go to the groups; what they answer, or its sum
over groups, comes back and is put together here. arXiv 2512.08786 has such a federation, in which
groups evaluate rollouts themselves and a server aggregates.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.errors import AnswersError
from pluralllm_app.federation.reward_server import Shares
from pluralllm_app.rewards.aggregation import Rule
from pluralllm_app.rewards.asked import Key, find, key_of
from pluralllm_app.rewards.choices import choice
from pluralllm_app.rewards.counts import SCORED, UNANSWERED, UNASKED, Counts
from pluralllm_app.rewards.group_reward import Rewards
from pluralllm_app.rewards.rollouts import COLUMNS, rollouts
from pluralllm_app.use.questions import Question, named
from pluralllm_app.use.survey import Survey

_NOWHERE = -1


def read_rollouts(file: Path) -> dict[str, Any]:
    """The prompts, completions and columns of a file, by name as `Choices.of` takes them.

    Args:
        file: with a line of JSON for each completion, as {"prompt": ..., "completion": ...}; and
            `question_id`, or `question` and `options`, where prompts do not say what they ask.

    Raises:
        AnswersError: it cannot be read, is empty, or a line is something else.
    """
    try:
        lines = file.read_text("utf-8").split("\n")  # a text may hold other ends of lines
    except (OSError, ValueError) as error:
        raise AnswersError(f"the rollouts {file} cannot be read: {error}") from error
    rows = [
        _row(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rows:
        raise AnswersError(
            f"{file} holds no rollouts: give a line for each completion, as "
            '{"prompt": "...", "completion": "..."}'
        )
    naming = [bool(row.keys() & {"question_id", "question"}) for row in rows]
    if any(naming) and not all(naming):
        raise AnswersError(
            f"{file}: rollout {naming.index(False) + 1} has no question_id or question, and others "
            "have: give it to all or to none, as null where a prompt asks no question"
        )
    columns: dict[str, list[Any] | None] = {
        name: [row.get(name) for row in rows] if any(name in row for row in rows) else None
        for name in COLUMNS
    }
    return {
        "prompts": [row["prompt"] for row in rows],
        "completions": [row["completion"] for row in rows],
        **columns,
    }


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AnswersError(f"{place} is no JSON: {error}") from error
    if not isinstance(row, dict) or not {"prompt", "completion"} <= row.keys():
        raise AnswersError(f"{place} needs a prompt and a completion, one of each")
    return row


@dataclass(frozen=True, eq=False)
class Choices:
    """Which options of a survey completions name."""

    rows: Ints  # [N] of the survey's options; -1 where a completion names none
    reasons: Sequence[str]  # [N] what to count each completion as

    @classmethod
    def of(
        cls, survey: Survey, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> "Choices":
        """Read completions, as `GroupReward` does; arguments are those of its call.

        Raises:
            AnswersError: see `GroupReward`; or a question is none of the survey's.
        """
        given = {name: columns.get(name) for name in COLUMNS}
        known: dict[Key, tuple[Question, Ints]] = {}
        rows: list[int] = []
        reasons: list[str] = []
        for rollout in rollouts(prompts, completions, given):
            key = key_of(rollout)
            if key is None:
                rows.append(_NOWHERE)
                reasons.append(UNASKED)
                continue
            if key not in known:
                known[key] = _options(survey, key, rollout.place)
            question, options = known[key]
            place, reason = choice(rollout.completion, question)
            rows.append(_NOWHERE if place is None else int(options[place]))
            reasons.append(reason)
        return cls(np.array(rows, np.int64), reasons)

    @property
    def counts(self) -> Counts:
        """How many completions name an option, and why the others name none."""
        return Counts(self.reasons)

    @property
    def asked(self) -> Ints:
        """The options to ask groups for, each once, ascending."""
        found: Ints = np.unique(self.rows[self.rows != _NOWHERE])
        return found


def _options(survey: Survey, key: Key, place: str) -> tuple[Question, Ints]:
    """A question as a prompt asks it, and the survey's row of each of its options."""
    question, where, found = find(survey, key, place)
    if where < 0:
        raise AnswersError(
            f"{place} asks {named(question)}, which is none of the survey's: no group can have "
            "answered it"
        )
    first = int(survey.rows([where], [found]).first_rows[0])
    places = [found.options.index(str(found.option(option))) for option in question.options]
    return question, first + np.array(places, np.int64)


@dataclass(frozen=True, eq=False)
class Rewarded:
    """What became of completions, in their order."""

    rewards: Rewards
    reasons: Sequence[str]  # what each is counted as
    contributors: Sequence[int]  # groups that have answered what each names; 0 if it names nothing
    by_group: Mapping[str, Rewards]  # {} where sums over groups are all that is known

    @property
    def counts(self) -> Counts:
        """How many have a reward, and why the others have none."""
        return Counts(self.reasons)

    def means(self) -> Doubles:
        """[groups] mean reward of each group, for a history.

        Raises:
            AnswersError: a group has answered nothing of this.
        """
        each = np.array(list(self.by_group.values()), np.float64)  # None as NaN
        for group, own in zip(self.by_group, each, strict=True):
            if np.isnan(own).all():
                raise AnswersError(
                    f"{group!r} has answered none of these questions, and so has no mean reward "
                    "for the history: ask about others, or take another rule"
                )
        found: Doubles = np.nanmean(each, axis=1)
        return found

    def lines(self) -> bytes:
        """A line of JSON for each completion."""
        found = []
        for row, reward in enumerate(self.rewards):
            line: dict[str, Any] = {"reward": reward, "groups": self.contributors[row]}
            if reward is None:
                line["why"] = self.reasons[row]
            if self.by_group:
                line["by_group"] = {name: each[row] for name, each in self.by_group.items()}
            found.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        return "".join(found).encode()


def rewarded(choices: Choices, shares: Shares, fewest: int, rule: Rule, past: Doubles) -> Rewarded:
    """Put what groups answered to `choices.asked` together.

    Args:
        choices: of the completions.
        shares: of the groups.
        fewest: groups that a sum has to be over.
        rule: how single rewards are put together; of sums there is a mean.
        past: [T, G] mean rewards of the groups in earlier calls, for the rule.
    """
    contributors = np.array(shares.contributors)
    single = np.zeros((0, len(contributors)))
    if shares.sums is not None:
        enough = contributors >= fewest
        found = np.where(enough, np.array(shares.sums) / np.maximum(contributors, 1), np.nan)
    else:
        single = np.array(shares.single, np.float64)  # None as NaN
        found = combined(single, rule, past)
    places = np.searchsorted(choices.asked, choices.rows)
    names = choices.rows != _NOWHERE
    places[~names] = 0

    def of_completions(by_option: Doubles) -> Rewards:
        rewards = np.where(names, by_option[places], np.nan)
        return [None if np.isnan(reward) else reward for reward in rewards.tolist()]

    rewards = of_completions(found)
    return Rewarded(
        rewards,
        [
            UNANSWERED if reason == SCORED and reward is None else reason
            for reason, reward in zip(choices.reasons, rewards, strict=True)
        ],
        np.where(names, contributors[places], 0).tolist(),
        {group: of_completions(own) for group, own in zip(shares.groups, single, strict=False)},
    )


def combined(rewards: Doubles, rule: Rule, past: Doubles) -> Doubles:
    """One reward for each option, of the groups that have answered it.

    Args:
        rewards: [G, n] of each group; NaN where it has not answered.
        rule: how they are put together.
        past: [T, G] mean rewards of earlier calls.

    Returns:
        [n], NaN where no group has answered.
    """
    found = np.full(rewards.shape[1], np.nan)
    answered = ~np.isnan(rewards)
    for groups in np.unique(answered[:, answered.any(axis=0)].T, axis=0):
        alike = (groups == answered.T).all(axis=1)
        found[alike] = rule.combine(rewards[np.ix_(groups, alike)], past[:, groups])
    return found
