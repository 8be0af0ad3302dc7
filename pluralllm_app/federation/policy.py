"""What the owner of a node lets a run ask of it: policy.toml, beside the key of the node.

No server can change it. It is read for every message, and checked before anything is computed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pluralllm_app.core.hidden_text import hidden
from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import RefusedError, SettingsError
from pluralllm_app.settings import (
    Count,
    Delta,
    Positive,
    Range,
    Settings,
    check_choice,
    check_names,
    read_section,
    section_keys,
)
from pluralllm_app.settings_files import read_toml

POLICY = "policy.toml"
NO_LIMIT = 2**62  # of any number; as a float it is the same
LEARNERS = ("gpo", "factors", "refined")
"""What a run may learn; refined is gpo with prior = factors."""
_FINGERPRINT = re.compile("SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True)
class Rules:
    """The rules of a policy that are single numbers or words."""

    draws: Literal["secret", "run-seed"] = "secret"
    secure_sum: Literal["none", "factors", "all"] = "factors"
    single_scores: Literal["leave", "stay"] = "leave"
    rewards: Literal["refuse", "secure-sum", "clear"] = "refuse"
    least_local_steps: Count = 1
    least_tasks_per_step: Count = 1
    least_train_groups: Count = 1
    least_cohort_share: Annotated[float, Range(0, 1)] = 0.66
    most_rounds: Count = NO_LIMIT
    most_messages: Count = NO_LIMIT
    most_rounds_in_total: Count = NO_LIMIT
    most_messages_in_total: Count = NO_LIMIT
    most_epsilon: Positive = NO_LIMIT
    delta: Delta = 1e-6


@dataclass(frozen=True)
class Policy(Rules):
    """What the owner of a node lets a run ask of it."""

    learners: tuple[str, ...] = LEARNERS
    peers: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of keys of groups that may train, by their names."""
    evaluation_peers: Mapping[str, str] = field(default_factory=dict)
    """The same of groups that never train; where both are empty, the server's word is taken."""

    @classmethod
    def read(cls, node: Path) -> "Policy":
        """The policy in the directory of a node; the defaults where it is not there.

        Raises:
            SettingsError: it is not TOML, has a key that is unknown, or a value that cannot be.
        """
        file = node / POLICY
        if not file.exists():
            return cls()
        try:
            return cls._of(read_toml(file))
        except SettingsError as error:
            raise SettingsError(f"{POLICY}: {str(error).replace(str(file), 'it')}") from error

    @classmethod
    def _of(cls, given: dict[str, Any]) -> "Policy":
        check_names(_DEFAULTS | given, [*_DEFAULTS])
        found = _DEFAULTS | given
        rules = read_section(Rules, {key: found[key] for key in section_keys(Rules)})
        pins = {key: _checked_peers(key, found[key]) for key in ("peers", "evaluation-peers")}
        if both := sorted({*pins["peers"]} & {*pins["evaluation-peers"]}):
            raise SettingsError(f"peers and evaluation-peers both have {both[0]!r}: keep one")
        return cls(
            **asdict(rules),
            learners=_checked_learners(found["learners"]),
            peers=pins["peers"],
            evaluation_peers=pins["evaluation-peers"],
        )

    @property
    def pinned(self) -> Mapping[str, str]:
        """Fingerprints of all keys that are pinned, by the groups' names."""
        return {**self.peers, **self.evaluation_peers}

    def pins(self, role: str) -> Mapping[str, str]:
        """Those of groups of one role."""
        return self.evaluation_peers if role == "evaluation" else self.peers

    def check(self, settings: Settings) -> None:
        """Raise RefusedError where a run asks for what this node's owner does not let it."""
        federation, training = settings.federation, settings.training
        if self.demands_noise and federation.noise == "none":
            self._refuse(
                "most-epsilon",
                "the run has noise = none, with which nothing bounds what is told of a respondent",
                f"run with noise = respondents and epsilon = {self.most_epsilon:g} or less",
            )
        if self.demands_noise and federation.noise == "groups" and not self.peers:
            self._refuse(
                "most-epsilon",
                "the run has noise = groups, which groups that a server makes up could take off "
                "again, and there are no [peers]",
                "ask its owner to pin the keys of all groups, or run with noise = respondents",
            )
        if federation.purpose == "rewards":
            self._check_rewards(federation.privacy)
            return
        learner = "refined" if federation.prior == "factors" else federation.predictor
        learned = f"predictor = {federation.predictor}, prior = {federation.prior}"
        if learner not in self.learners:
            self._refuse("learners", f"the run has {learned}, which is {learner}", "choose another")
        privacy = federation.privacy
        demanded = self.secure_sum == "all" or (self.secure_sum == "factors" and learner != "gpo")
        if demanded and privacy != "secure-sum":
            self._refuse(
                "secure-sum",
                f"the run has {learned}, privacy = {privacy}, with which the server sees what this "
                "group alone contributes",
                "run with privacy = secure-sum",
            )
        least = {"least-train-groups": ("min-train-groups", federation.min_train_groups)}
        if learner != "factors":  # which takes no steps
            least |= {
                "least-local-steps": ("local-steps", training.local_steps),
                "least-tasks-per-step": ("tasks-per-step", training.tasks_per_step),
            }
        for key, (setting, asked) in least.items():
            if asked < (low := self.of_key(key)):
                self._refuse(
                    key,
                    f"the run has {setting} = {asked}, with which more of the answers can be told",
                    f"run with {setting} = {low} or more",
                )
        if federation.rounds > self.most_rounds:
            self._refuse(
                "most-rounds",
                f"the run has rounds = {federation.rounds}",
                f"run with rounds = {self.most_rounds} or fewer",
            )

    def _check_rewards(self, privacy: str) -> None:
        if self.rewards == "refuse":
            self._refuse(
                "rewards",
                "the run asks how many of this group's people pick which options",
                "ask its owner, who would have to set secure-sum or clear",
            )
        if self.rewards == "secure-sum" and privacy != "secure-sum":
            self._refuse(
                "rewards",
                f"the run has privacy = {privacy}, with which the server sees this group's own "
                "answers",
                "reward with the rule mean, by secure sums",
            )

    def check_cohort(self, groups: int, known: int, role: str = "train") -> None:
        """Raise RefusedError where a sum is over fewer groups than this node's owner lets it.

        Args:
            groups: of the sum.
            known: groups of the same role whose keys the node knows or pins, its own among them.
            role: of these groups.
        """
        trains = role == "train"
        kind = "train groups" if trains else "groups that never train"
        if groups < self.least_cohort_share * known:
            how, remedy = "knows", "begin the run with more of them"
            if self.pinned:
                how = "pins"
                if trains:
                    remedy += ", or ask its owner to pin those that never train in "
                    remedy += "[evaluation-peers]"
            else:
                remedy += ", or ask its owner to forget those that have left: pluralllm deploy "
                remedy += "peers NODE --forget GROUP"
            self._refuse(
                "least-cohort-share",
                f"the sum is over {groups} of the {known} {kind} that it {how}",
                remedy,
            )
        if groups < self.least_train_groups:
            remedy = "begin the run with more"
            if not trains:
                remedy += ", or with scores = per-group"
            self._refuse("least-train-groups", f"the sum is over {groups} {kind}", remedy)

    def withholds(self, settings: Settings) -> bool:
        """Whether a run asks for scores of this group alone, which may not leave."""
        return self.single_scores == "stay" and settings.federation.scores == "per-group"

    def check_scores(self, settings: Settings) -> None:
        """Raise RefusedError where a run asks for scores of this group alone that may not leave."""
        if self.withholds(settings):
            self._refuse(
                "single-scores",
                "the server asks for them",
                "it goes on without them, and with scores = mean it adds them to a secure sum",
            )

    @property
    def demands_noise(self) -> bool:
        """Whether nothing leaves but what noise protects."""
        return self.most_epsilon < NO_LIMIT

    def check_epsilon(self, rho: float) -> None:
        """Raise RefusedError where all noise that was ever drawn would cost too much.

        Args:
            rho: what it costs with the next draw, see `privacy.accounting`.
        """
        # Not at the top: what it needs takes a while to import, and most nodes have no limit.
        from pluralllm_app.privacy.accounting import epsilon_of

        if self.demands_noise and (spent := epsilon_of(rho, self.delta)) > self.most_epsilon:
            self._refuse(
                "most-epsilon",
                f"noise that was drawn so far and that of this run cost epsilon = {spent:.4g} at "
                f"delta = {self.delta:g}",
                "run with a smaller epsilon, or with one of an earlier run, whose noise is used "
                "again",
            )

    def check_true_answers(self) -> None:
        """Raise RefusedError where a group may not be scored on its answers as they are."""
        if self.demands_noise:
            self._refuse(
                "most-epsilon",
                "its group is for evaluation, which is scored on its answers without noise",
                "run without it, or let its site be made with --role train",
            )

    def check_spent(self, spent: Mapping[str, int]) -> None:
        """Raise RefusedError where a message would exceed a limit.

        Args:
            spent: what it makes of the counts, by the keys of their limits.
        """
        for key, count in spent.items():
            if count > self.of_key(key):
                self._refuse(key, f"this would be number {count}", "ask its owner for more")

    def check_peers(self, said: Mapping[str, str], role: str) -> None:
        """Raise RefusedError where a group is not pinned so, while some are.

        Args:
            said: fingerprints by the groups' names.
            role: of these groups, as the server says.
        """
        pinned = self.pinned
        for name, fingerprint in said.items():
            if pinned and pinned.get(name) != fingerprint:
                raise RefusedError(
                    f"its {POLICY} pins {pinned.get(name, 'no key')} for group {name!r}, and "
                    f"the server says {fingerprint}"
                )
            if pinned and name not in self.pins(role):
                does, table, right = (
                    ("never trains", "peers", "evaluation-peers")
                    if role == "evaluation"
                    else ("may train", "evaluation-peers", "peers")
                )
                raise RefusedError(
                    f"its {POLICY} pins group {name!r} in [{table}], and the server says that it "
                    f"{does}: where that is so, its owner moves the line to [{right}]"
                )

    def cautions(self) -> list[str]:
        """What the owner of a node must know who has such a policy."""
        said = []
        if self.draws == "run-seed":
            said.append(
                'draws = "run-seed": the server knows which questions each step of training uses'
            )
        if self.secure_sum == "none" and {"factors", "refined"} & {*self.learners}:
            said.append(
                'secure-sum = "none": in runs that learn factors in the clear, the server can '
                "compute every answer of this group"
            )
        if self.rewards == "clear":
            said.append(
                'rewards = "clear": the server can ask for every answer of this group, and gets it'
            )
        if not self.pinned and self.secure_sum != "none":
            said.append(
                "no [peers]: a server can make up groups, and secure sums over these hide nothing"
            )
        return said

    def of_key(self, key: str) -> Any:
        """The value of a rule, by its key in the file."""
        return getattr(self, key.replace("-", "_"))

    def _refuse(self, key: str, why: str, remedy: str) -> NoReturn:
        has = json.dumps(self.of_key(key))
        raise RefusedError(f"its {POLICY} has {key} = {has}, and {why}: {remedy}")


_DEFAULTS: dict[str, Any] = {
    key: getattr(Policy(), key.replace("-", "_")) for key in section_keys(Policy)
}


def _checked_learners(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise SettingsError(f'learners = {given!r} must be a list, such as ["gpo"]')
    for name in given:
        check_choice("learners", name, LEARNERS)
    return tuple(given)


def _checked_peers(key: str, given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise SettingsError(f'{key} = {given!r} must be a table, such as {{North = "SHA256:..."}}')
    for name, fingerprint in given.items():
        if not name or name != clean_text(name) or hidden(name):
            raise SettingsError(f"{key} has {name!r}, which is no name of a group")
        if not (isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint)):
            raise SettingsError(
                f"{key}: {name} = {fingerprint!r} must be SHA256: and 43 more characters, as "
                "`pluralllm deploy peers` shows it"
            )
    return given
