"""Scores of which the server sees sums alone: one secure sum for each role, of every evaluation.

The groups of a role are a cohort of their own, and all sums of a run over it are over the same
groups: scores change little from one evaluation to the next, so that a difference would tell the
score of a group that is in one of them. So where a group is lost that was in an earlier sum, its
role has no mean in that evaluation.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import numpy as np
from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.heard import Heard
from pluralllm_app.federation.messages import MaskedScores
from pluralllm_app.federation.roster import Roster
from pluralllm_app.federation.secure_group import scores_form, scores_request
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.federation.state import RunState, UsedSums
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.scoring.results import ROLES, EvaluationResult, Role, RoleSummary
from pluralllm_app.scoring.sums import summary_of_sums
from pluralllm_app.settings import Settings


class ScoreSums:
    """Sums of the scores of each role's groups.

    Args:
        grid: of the nodes.
        settings: of the run.
        roster: its groups.
        state: of the run, in which it is kept what sums were used up.
        save: keeps the state, for where the run is resumed.
        progress: called with a line for the log.

    Raises:
        FederationError: a role has one or two groups.
    """

    def __init__(
        self,
        grid: Grid,
        settings: Settings,
        roster: Roster,
        state: RunState,
        save: Callable[[], None],
        progress: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._roster = roster
        self._progress = progress
        self._round = 0
        self._by_role: dict[Role, SecureSums] = {}
        self._experiments: dict[Role, str] = {}
        self._cohorts: dict[Role, list[str]] = {}  # of the evaluation that was begun
        scored = {*roster.scored(settings)}
        for role in ROLES:
            if {*roster.of_role(role)} & scored:
                used = state.scores.setdefault(role, UsedSums())
                name = sha256(f"scores {role} {state.experiment}".encode()).hexdigest()[:32]
                self._experiments[role] = name
                self._by_role[role] = SecureSums(
                    grid, settings, roster, name, used, save, progress, scored=role
                )

    def begin(self, sent: Arrays, round_number: int, heard: Heard) -> list[str]:
        """Take the next sum of each role; returns the groups that are to be scored.

        Args:
            sent: what groups score.
            round_number: of it.
            heard: is told of groups that are lost meanwhile, as missed.
        """
        self._round, self._cohorts = round_number, {}
        federation, evaluation = self._settings.federation, self._settings.evaluation
        left = (federation.rounds - round_number) // evaluation.evaluate_every + 2
        form = scores_form(self._settings)
        for role, sums in self._by_role.items():
            request = scores_request(self._experiments[role], round_number)
            try:
                self._cohorts[role] = sums.begin(form, sent, request, left, heard)
            except FederationError as error:
                self._note(role, error, heard)
        return [name for cohort in self._cohorts.values() for name in cohort]

    def record(self, name: str) -> ConfigRecord:
        """What asks a group for its masked scores, in a message with what it scores."""
        return self._sums_of(name).record(name)

    def add(self, name: str, masked: MaskedScores) -> None:
        """Take a group's masked scores; raises ValueError where they are none."""
        sums = self._sums_of(name)
        sums.form.check_arrays(masked.arrays)
        sums.add(name, masked.arrays)

    def result(self, heard: Heard) -> EvaluationResult | None:
        """What the sums that were begun tell; None where no role has any.

        Groups that were lost are among `heard.missed` then.
        """
        roles = {role: self._summary(role, heard) for role in ROLES}
        self._cohorts = {}
        return EvaluationResult(roles=roles, groups={}) if any(roles.values()) else None

    def _summary(self, role: Role, heard: Heard) -> RoleSummary | None:
        if role not in self._cohorts:
            return None
        sums = self._by_role[role]
        try:
            total = sums.total(heard)
        except FederationError as error:
            self._note(role, error, heard)
            return None
        numbers = {name: float(np.sum(array)) for name, array in total.arrays.items()}
        return summary_of_sums(numbers, sums.entry().groups)

    def _note(self, role: Role, error: FederationError, heard: Heard) -> None:
        """Say that a role has no mean; where nobody of it was lost, something is wrong."""
        of_role = {*self._roster.of_role(role)}
        if not any(failure.group in of_role for failure in heard.missed):
            raise error
        self._progress(f"round {self._round}: no mean of the scores of {role} groups: {error}")
        heard.missed[:] = [
            replace(failure, reason=f"{failure.reason} (so {role} groups have no mean score)")
            if failure.group in of_role
            else failure
            for failure in heard.missed
        ]

    def _sums_of(self, name: str) -> SecureSums:
        role = next(role for role, cohort in self._cohorts.items() if name in cohort)
        return self._by_role[role]
