"""The methods that can be compared: what each is called, how it runs, how the report draws it.

A new method is one entry of `METHODS`: command, tables, comparison and report read it from here.
What runs a method is imported only when it runs, so that `pluralllm --help` does not wait for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import UserError
from pluralllm_app.learning.budgets import LONGEST, PATIENCE, budget_steps

if TYPE_CHECKING:
    from pluralllm_app.settings import Scalar, Settings
    from pluralllm_app.survey.prepared import PreparedSurvey

    Config = Mapping[str, Scalar]
    Run = Callable[[PreparedSurvey, Settings, Config], None]

# Of each group's answers. With fewer, a score on those whose respondents are known would be on
# other questions than the scores of other methods.
KNOWN = 0.95


@dataclass(frozen=True)
class Look:
    """How the report draws a method: colours as #rrggbb, dash of its lines, shape of its points."""

    light: str  # on a light background
    dark: str  # on a dark one
    dash: tuple[int, ...]  # lengths of dashes and gaps in turn
    shape: str  # one of `report.page.SHAPES`


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A way to predict the groups' answers."""

    name: str
    title: str
    pools_answers: bool  # whether it needs the train groups' raw answers in one place
    run: "Run"  # writes a run directory at `settings.out`
    look: Look
    shown_first: bool = False  # drawn at first where many methods would hide each other
    far_off: bool = False  # its scores are so far from others that at first no curve is drawn
    until_converged: bool = False
    """Whether it trains until its score stops rising. Its result is that of its best predictor, and
    a run that its budget ends is cut off."""
    steps: "Callable[[Settings, int], int] | None" = None
    """Optimiser steps, by settings and number of train groups. Methods that have this and give the
    same number are the same method, which is run once."""
    needs_respondents: bool = False  # whether it has to be known how many people were asked
    cost_note: str = ""  # said below a table of costs that has the method


def _later(function: str, *arguments: str) -> "Run":
    """What calls a function of `experiments.runs`, which is imported then."""

    def run(survey: "PreparedSurvey", settings: "Settings", config: "Config") -> None:
        from pluralllm_app.experiments import runs

        getattr(runs, function)(survey, settings, config, *arguments)

    return run


def _baseline(kind: str, look: Look, *, pools_answers: bool, **more: Any) -> MethodSpec:
    """A baseline of `predictors.registry`, which is not imported for what it says of itself."""
    return MethodSpec(
        name=kind,
        title=kind.replace("-", " ").capitalize(),
        pools_answers=pools_answers,
        run=_later("run_baseline", kind),
        look=look,
        **more,
    )


# In the order of tables. Of the looks, lightness differs along with hue, and neighbours differ in
# dash and shape, so that no two methods are told apart by colour alone.
_SPECS = (
    MethodSpec(
        name="federated",
        title="Federated GPO",
        pools_answers=False,
        run=_later("run_federated"),
        look=Look("#0069b4", "#56b4f5", (), "circle"),
        shown_first=True,
    ),
    MethodSpec(
        name="factors",
        title="Federated factors, sums in the clear",
        pools_answers=False,
        run=_later("run_preset", "factors.toml"),
        look=Look("#b3261e", "#ff8a80", (6, 2), "triangle-right"),
        shown_first=True,
    ),
    MethodSpec(
        name="refined",
        title="GPO on factors, sums in the clear",
        pools_answers=False,
        run=_later("run_preset", "refined.toml"),
        look=Look("#7a3e00", "#e6b37a", (3, 2), "triangle-up"),
    ),
    MethodSpec(
        name="centralized-paper",
        title="Centralized GPO, 100 steps",
        pools_answers=True,
        run=_later("run_centralized", "paper"),
        look=Look("#b07d00", "#f0c040", (2, 2), "triangle-up"),
        steps=partial(budget_steps, "paper"),
    ),
    MethodSpec(
        name="centralized-equal-steps",
        title="Centralized GPO, equal steps",
        pools_answers=True,
        run=_later("run_centralized", "equal-steps"),
        look=Look("#8a4b1f", "#d0a07a", (10, 3, 2, 3), "triangle-down"),
        steps=partial(budget_steps, "equal-steps"),
    ),
    MethodSpec(
        name="centralized-equal-tasks",
        title="Centralized GPO, equal tasks",
        pools_answers=True,
        run=_later("run_centralized", "equal-tasks"),
        look=Look("#d55e00", "#ff9350", (8, 3), "square"),
        steps=partial(budget_steps, "equal-tasks"),
        shown_first=True,
    ),
    MethodSpec(
        name="centralized-converged",
        title="Centralized GPO, converged",
        pools_answers=True,
        run=_later("run_centralized", "converged"),
        look=Look("#a8325e", "#f28bb0", (5, 2), "diamond"),
        until_converged=True,
        cost_note=f"Converged: constant learning rate until {PATIENCE} evaluations in a row bring "
        f"no better score of the train groups; cut off: its budget of {LONGEST} times equal steps "
        "ended it before. Its scores are the best of these evaluations, so optimistic for train "
        "groups.",
    ),
    MethodSpec(
        name="local-only",
        title="GPO of one group alone",
        pools_answers=False,
        run=_later("run_alone"),
        look=Look("#6a4fb3", "#b9a5f5", (3, 4), "cross"),
        cost_note="GPO of one group alone: its steps are those of the group that took the most.",
    ),
    _baseline(
        "uniform",
        Look("#707070", "#a8a8a8", (1, 3), "cross"),
        pools_answers=False,
        far_off=True,
    ),
    _baseline(
        "consensus",
        Look("#00805f", "#3ccfa0", (6, 4), "square"),
        pools_answers=True,
        shown_first=True,
    ),
    _baseline(
        "weighted-consensus",
        Look("#2b8ca3", "#7fd8ea", (10, 4), "triangle-right"),
        pools_answers=True,
    ),
    _baseline(
        "low-rank",
        Look("#c0559a", "#f5a5d5", (2, 3), "diamond"),
        pools_answers=True,
        shown_first=True,
    ),
    _baseline(
        "ridge",
        Look("#67790f", "#bccf5a", (4, 2, 1, 2), "triangle-left"),
        pools_answers=False,
    ),
    MethodSpec(
        name="ceiling",
        title="Ceiling: sampling noise, no method",
        pools_answers=False,
        run=_later("run_ceiling"),
        look=Look("#3d3d3d", "#d8d8d8", (12, 2), "diamond"),
        needs_respondents=True,
        cost_note="Ceiling: expected score of whoever knew the true shares of all people in a "
        "group, since the observed ones are those of a sample.",
    ),
)
METHODS = {spec.name: spec for spec in _SPECS}


def check_methods(names: Sequence[str]) -> None:
    """Raise UserError, suggesting the nearest, for a name that no method has."""
    for name in names:
        if name not in METHODS:
            raise UserError(f"method {name!r} does not exist: {did_you_mean(name, METHODS)}")


def available_methods(names: Sequence[str], survey: "PreparedSurvey") -> list[str]:
    """Return the methods `names`, or without any all that the survey allows.

    Raises:
        UserError: one of `names` needs what the survey does not have.
    """
    import numpy as np  # not at the top: the command starts without it

    respondents = [survey.preferences(group.name).respondents for group in survey.groups]
    known = all(own is not None and np.isfinite(own).mean() >= KNOWN for own in respondents)
    for name in names:
        if METHODS[name].needs_respondents and not known:
            raise UserError(
                f"method {name!r} needs to know how many people gave each answer, of at least "
                f"{KNOWN:.0%} of each group's answers, and {survey.name} does not say so: "
                "leave the method out"
            )
    return list(names) or [
        name for name, spec in METHODS.items() if known or not spec.needs_respondents
    ]


def same_methods(settings: "Settings", train_groups: int) -> dict[str, str]:
    """Methods that are the same here as an earlier one: {method: the earlier}."""
    first: dict[int, str] = {}
    same: dict[str, str] = {}
    for spec in METHODS.values():
        if spec.steps:
            earlier = first.setdefault(spec.steps(settings, train_groups), spec.name)
            if earlier != spec.name:
                same[spec.name] = earlier
    return same
