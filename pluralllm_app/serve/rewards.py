"""Rewards of a language model's completions over HTTP: in plain JSON, and as OpenRLHF asks."""

import math
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from pluralllm_app.rewards.group_reward import GroupReward
from pluralllm_app.rewards.openrlhf import RewardFunc
from pluralllm_app.rewards.several import SeveralGroups
from pluralllm_app.serve.groups import Groups
from pluralllm_app.serve.limits import REWARDED
from pluralllm_app.serve.messages import (
    Known,
    Refused,
    RewardRequest,
    RewardResponse,
    checked,
)
from pluralllm_app.use.group import Group

Stated = Iterable[tuple[str, str]]


class Rewards:
    """Scores completions by groups of a request, or by those that the service was given."""

    def __init__(self, groups: Groups, named: Iterable[Group] = ()) -> None:
        """Prepare to score.

        Args:
            groups: that were asked about last.
            named: groups that an address may name, as `/reward?group=North`.
        """
        self._groups = groups
        self._named = {group.name: group for group in named}

    @property
    def named(self) -> Iterable[Group]:
        """The groups that an address may name."""
        return self._named.values()

    def reward(self, request: RewardRequest, stated: Stated = ()) -> RewardResponse:
        """Score completions.

        Args:
            request: what was sent.
            stated: what is behind the `?` of the address, for clients that can send nothing but
                queries, prompts and labels: `group`, `description`, `rule`, `form`, `unread`.

        Raises:
            Refused, UserError: it cannot be done.
        """
        wishes = list(stated)
        request = _with_settings(request, wishes)
        groups = [(each.name, self._groups.group(each)) for each in request.groups]
        for name, value in wishes:
            if name == "group":
                groups.append((value, self._by_name(value)))
            if name == "description":
                groups.append((value, self._groups.group(Known(description=value))))
        if not 0 < len(groups) <= REWARDED:
            raise Refused(
                422,
                f"{len(groups)} groups to reward were named: name 1 to {REWARDED}, in `groups`, or "
                "in the address as ?group=NAME or ?description=TEXT",
            )
        if request.rule == "adaptive-alpha":
            raise Refused(
                422,
                "adaptive-alpha weighs groups by their past, and the service keeps none: use mean, "
                "min, max or nash, or the rewards in Python",
            )
        rewards = []
        for name, group in groups:
            reward = GroupReward(group, request.form, request.unread)
            reward.__name__ = name
            rewards.append(reward)
        return _scored(SeveralGroups(rewards, request.rule), request)

    def _by_name(self, name: str) -> Group:
        if name not in self._named:
            known = ", ".join(map(repr, self._named)) or "none, see `pluralllm serve --group`"
            raise Refused(422, f"no group is called {name!r} here; known are: {known}")
        return self._named[name]


def _with_settings(request: RewardRequest, wishes: list[tuple[str, str]]) -> RewardRequest:
    found: dict[str, Any] = {}
    for name, value in wishes:
        if name == "unread":
            found[name] = _number(value)
        elif name in ("rule", "form"):
            found[name] = value
        elif name not in ("group", "description"):
            raise Refused(
                422,
                f"{name!r} is nothing that /reward knows: group, description, rule, form, unread",
            )
    return checked(replace(request, **found))


def _number(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Refused(422, f"unread={value} is no number")
    return found


def _scored(reward: SeveralGroups, request: RewardRequest) -> RewardResponse:
    if (request.completions is None) == (request.query is None):
        raise Refused(422, "give either `completions`, or `query` in the form of OpenRLHF")
    if request.query is not None:
        told = RewardFunc(reward)(request.query, request.prompts, request.labels or [])
        return RewardResponse(**told)
    columns: dict[str, Any] = {}
    if request.question_ids is not None:
        columns["question_id"] = request.question_ids
    found = reward(request.prompts, request.completions or [], **columns)
    return RewardResponse(found, found, {})
