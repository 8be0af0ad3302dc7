"""What servers have asked of a node so far, and what noise it drew: ledger.json, beside its key.

A message is counted, and the count is on the disk, before anything is computed: whoever kills the
node, or starts it anew, gains nothing.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from pluralllm_app.core.atomic import sync_directory, write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.errors import UserError
from pluralllm_app.federation.policy import Policy
from pluralllm_app.settings import Settings

LEDGER = "ledger.json"
_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Count:
    """Messages that a node took up, and rounds that it learned in."""

    messages: int = 0
    rounds: int = 0

    def plus(self, rounds: int) -> "Count":
        """With another message, in which it learned in so many rounds."""
        return Count(self.messages + 1, self.rounds + rounds)


@dataclass(frozen=True)
class Draw:
    """Noise that was drawn once."""

    unit: Literal["respondents", "groups"]
    rho: float  # what it costs, see `privacy.accounting`
    epsilon: float  # as the run asked for it; of groups, for all of its rounds together
    delta: float


@dataclass(frozen=True)
class Ledger:
    """What a node has counted."""

    total: Count
    runs: Mapping[str, Count]
    """By the SuperLink's number of the run."""
    noise: Mapping[str, Draw] = field(default_factory=dict)
    """By the names of the draws."""

    @property
    def rho(self) -> float:
        """What all draws cost together."""
        return sum(draw.rho for draw in self.noise.values())

    @classmethod
    def read(cls, node: Path) -> "Ledger":
        """That in the directory of a node; one that is not there counts nothing.

        Raises:
            UserError: ledger.json is damaged.
        """
        file = node / LEDGER
        try:
            return (
                msgspec.json.decode(file.read_bytes(), type=cls)
                if file.exists()
                else cls(Count(), {})
            )
        except (OSError, msgspec.MsgspecError) as error:
            raise UserError(
                f"{LEDGER} is damaged ({error}): restore it from a copy, or remove it. The node "
                "then counts rounds, messages and noise from nothing"
            ) from error

    def write(self, node: Path) -> None:
        """Write it, and wait until it is on the disk."""
        content = json.dumps(asdict(self), indent=1).encode() + b"\n"
        write_atomically(node / LEDGER, content, secret=True)
        sync_directory(node)


def admit(
    node: Path, settings: Settings, run: int, *, rounds: int = 0, scores: bool = False
) -> Policy:
    """Check a message against the policy of a node, and count it; returns the policy.

    Args:
        node: directory of the node.
        settings: of the run.
        run: the SuperLink's number of it.
        rounds: in how many rounds the node learns for it.
        scores: whether nothing but the scores of its group is asked for.

    Raises:
        RefusedError: the policy does not let it. It is not counted.
        UserError: the policy or ledger.json is damaged, or that cannot be written.
    """
    policy = Policy.read(node)
    policy.check(settings)
    if scores:
        policy.check_scores(settings)
    with _writing(node):
        before = Ledger.read(node)
        own, total = before.runs.get(str(run), Count()).plus(rounds), before.total.plus(rounds)
        spent = {"most-messages": own.messages, "most-messages-in-total": total.messages}
        if rounds:
            spent |= {"most-rounds": own.rounds, "most-rounds-in-total": total.rounds}
        policy.check_spent(spent)
        replace(before, total=total, runs={**before.runs, str(run): own}).write(node)
    return policy


def spend(node: Path, name: str, draw: Draw) -> None:
    """Note noise before it is drawn; once for each name.

    Args:
        node: directory of the node.
        name: of the draw.
        draw: what it costs.

    Raises:
        RefusedError: with it the policy's most-epsilon would be exceeded. It is not noted.
        UserError: the policy or ledger.json is damaged, or that cannot be written.
    """
    with _writing(node):
        before = Ledger.read(node)
        if name in before.noise:
            return
        after = replace(before, noise={**before.noise, name: draw})
        Policy.read(node).check_epsilon(after.rho)
        after.write(node)


@contextmanager
def _writing(node: Path) -> Iterator[None]:
    """Lock the ledger of a node, and say what a failure to write it means."""
    try:
        with held(node / f".{LEDGER}.lock", f"another process writes {LEDGER}", _WAIT_SECONDS):
            yield
    except OSError as error:
        raise UserError(
            f"cannot write {LEDGER}, in which this node counts what it is asked: {error.strerror}; "
            "let the node write the directory of its key"
        ) from error
