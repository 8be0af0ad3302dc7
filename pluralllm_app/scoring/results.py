"""How a predictor did on all groups of a run: alignment and fairness by role, and each group's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from pluralllm_app.preferences import reserved_questions
from pluralllm_app.scoring.evaluation import GroupEvaluation
from pluralllm_app.scoring.metrics import (
    GroupScores,
    coefficient_of_variation,
    fairness_index,
    fairness_per_question,
)
from pluralllm_app.settings import SplitSettings

Role = Literal["train", "evaluation"]
ROLES: tuple[Role, ...] = ("train", "evaluation")


@dataclass(frozen=True, kw_only=True)
class RoleSummary:
    """Alignment and fairness over the groups of one role.

    Both `mean_seen` and `mean_reserved` are None where no question is kept from training. Where
    single groups' scores are not known (`scoring.sums`), what only they tell is None, and a group's
    score is the mean of those two where there are both.
    """

    groups: int  # how many were scored
    mean: float  # over groups
    pooled: float | None  # over pairs of group and question
    worst: float | None
    worst_group: str | None
    gap: float | None  # best - worst
    cov: float  # coefficient of variation of the groups' means
    fi: float  # fairness index of the groups' means
    fi_per_question: float | None  # see `fairness_per_question`
    mean_seen: float | None = None  # over groups, on questions that train groups may train on
    mean_reserved: float | None = None  # over groups, on questions that no group trains on

    @property
    def selection_score(self) -> float:
        """What the best predictor of a run is chosen by: never by reserved questions."""
        if self.mean_seen is None:
            return self.mean if self.mean_reserved is None else -math.inf
        return self.mean_seen


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """How a predictor did on one group, averaged over its evaluation contexts."""

    role: Role
    alignment: float
    loss: float | None  # nats per option; None for a predictor without a likelihood
    questions: int
    coverage: Sequence[float] | None = field(default=None, metadata={"optional": True})
    """Of intervals, for each of `base.LEVELS`; None for a predictor without."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """How a predictor did on all groups; a role is None where none of its groups was scored."""

    roles: Mapping[Role, RoleSummary | None]
    groups: Mapping[str, GroupResult]

    def __post_init__(self) -> None:
        if set(self.roles) != set(ROLES):
            raise ValueError(f"the roles must be {' and '.join(ROLES)}")


def summarise(
    evaluations: Mapping[str, GroupEvaluation], roles: Mapping[str, str], split: SplitSettings
) -> EvaluationResult:
    """Put the evaluations of groups together.

    Args:
        evaluations: by the group's name.
        roles: role of at least these groups, by name.
        split: which questions were kept from training.
    """
    scored = {
        role: {name: found.scores for name, found in evaluations.items() if roles[name] == role}
        for role in ROLES
    }
    return EvaluationResult(
        roles={
            role: summarise_role(scores, split) if scores else None
            for role, scores in scored.items()
        },
        groups={
            name: GroupResult(
                role=cast(Role, roles[name]),
                alignment=found.scores.mean,
                loss=found.loss,
                questions=len(found.scores.questions),
                coverage=found.coverage,
            )
            for name, found in evaluations.items()
        },
    )


def summarise_role(groups: Mapping[str, GroupScores], split: SplitSettings) -> RoleSummary:
    """Alignment and fairness over the groups of one role, by name; at least one."""
    names = sorted(groups)
    means = np.array([groups[name].mean for name in names])
    pooled = np.concatenate([groups[name].scores for name in names])
    seen, reserved = _means_by_reservation(list(groups.values()), split)
    return RoleSummary(
        groups=len(names),
        mean=float(means.mean()),
        pooled=float(pooled.mean()),
        worst=float(means.min()),
        worst_group=names[int(means.argmin())],
        gap=float(means.max() - means.min()),
        cov=coefficient_of_variation(means),
        fi=fairness_index(means),
        fi_per_question=fairness_per_question(groups),
        mean_seen=seen,
        mean_reserved=reserved,
    )


def _means_by_reservation(
    groups: Sequence[GroupScores], split: SplitSettings
) -> tuple[float | None, float | None]:
    """Mean over groups of the scores on questions that are not reserved, and on those that are."""
    if not split.reserved_fraction:
        return None, None
    means: tuple[list[float], list[float]] = [], []
    for group in groups:
        reserved = reserved_questions(group.questions, split)
        for scores, mask in zip(means, (~reserved, reserved), strict=True):
            if mask.any():
                scores.append(float(group.scores[mask].mean()))
    seen, reserved_mean = (float(np.mean(scores)) if scores else None for scores in means)
    return seen, reserved_mean
