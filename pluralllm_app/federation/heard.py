"""What the replies of a round say, and what is wrong with those that are not good."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import Message, RecordDict

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.exchange import NOT_CONNECTED, WENT_AWAY
from pluralllm_app.federation.flower_compat import error_reason, node_was_lost
from pluralllm_app.federation.messages import Evaluation, MaskedScores, Update
from pluralllm_app.records.schema import Failure, GroupUpdate, Phase
from pluralllm_app.settings import Settings

Content = TypeVar("Content")


@dataclass
class Heard:
    """What the replies to an exchange said, without their weights."""

    since: float  # when it began, of the performance counter; later, when its scoring was done
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    missed: list[Failure] = field(default_factory=list)  # to score
    trained: dict[str, GroupUpdate] = field(default_factory=dict)
    lost: list[Failure] = field(default_factory=list)  # to train
    training: float = 0.0  # seconds at the nodes
    scoring: float = 0.0  # likewise
    away: set[str] = field(default_factory=set)  # groups whose nodes went away
    all_replies: bool = False  # whether the last one was looked at
    means: Mapping[str, float] = field(default_factory=dict)  # metrics, where only sums are known

    def scored(self, name: str, found: Evaluation | MaskedScores) -> None:
        """Take note of a group's scores; those that are masked are in their sum."""
        self.scoring += found.seconds
        if isinstance(found, Evaluation):
            self.evaluations[name] = found

    def note(self, name: str, update: Update) -> None:
        self.training += update.seconds
        self.trained[name] = {
            **{key.replace("-", "_"): value for key, value in update.contribution.metrics.items()},
            "questions": int(update.contribution.weight),
            "seconds": round(update.seconds, 3),
        }

    def reply_of(self, name: str, reply: Message | str) -> Message | str:
        """A group's reply, or why there is none; notes whether its node went away."""
        if isinstance(reply, str):
            if reply in (NOT_CONNECTED, WENT_AWAY):
                self.away.add(name)
            return reply
        if node_was_lost(reply):
            self.away.add(name)
        return error_reason(reply) if reply.has_error() else reply

    def loss(self) -> float | None:
        """The mean loss of the groups that trained; None where they have none."""
        if "loss" in self.means:
            return self.means["loss"]
        losses = [update["loss"] for update in self.trained.values() if "loss" in update]
        return float(np.mean(losses)) if losses else None

    def check_quorum(self, number: int, quorum: int, settings: Settings) -> None:
        """Raise FederationError where fewer groups than a quorum have trained in a round."""
        if len(self.trained) < quorum:
            threshold = quorum > settings.federation.min_train_groups
            name = "the threshold of secure sums" if threshold else "min-train-groups"
            raise FederationError(
                f"round {number}: good updates: {len(self.trained)}, fewer than {name} "
                f"= {quorum}: {causes(self.lost)}"
            )

    def scoring_share(self) -> float:
        """The part of the nodes' work that was scoring."""
        return self.scoring / (self.scoring + self.training) if self.scoring else 0.0


def read_reply(
    phase: Phase,
    name: str,
    reply: Message | str,
    read: Callable[[str, RecordDict], Content],
    failures: list[Failure],
) -> Content | None:
    """Read a group's reply; None where it is not good, which is added to `failures`."""
    if isinstance(reply, str):
        reason = reply
    else:
        try:
            return read(name, reply.content)
        except ValueError as error:
            reason = f"refused: {error}"
    failures.append(Failure(group=name, phase=phase, reason=reason))
    return None


def causes(failures: list[Failure]) -> str:
    """All failures in one line."""
    return "; ".join(f"{failure.group}: {failure.reason}" for failure in failures)
