"""What a group keeps of its secrets between messages, in a file that its owner alone can read.

A file is on the disk before the reply to a message leaves, so that a group that is killed and
started again, or loses power, does nothing twice: unless somebody gives it an older copy of the
file. Secrets of a sum are gone from it once the sum is opened, or a later one is masked.
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import msgspec

from pluralllm_app.core.atomic import sync_directory, write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.errors import FederationError
from pluralllm_app.secure_sum.messages import (
    Advertisement,
    Invitation,
    Meaning,
    Name,
    Names,
    Number,
    Roll,
    Seed,
    Shares,
    read,
    write,
)

_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Secrets:
    """A group's own secrets of a sum."""

    mask: Seed  # its mask key follows from it
    seed: Seed  # b, its self mask follows from it
    own: Shares | None = None  # the shares that it deals itself


@dataclass(frozen=True)
class Masked:
    """A sum whose vector a group has sent."""

    number: Number
    meaning: Meaning
    context: bytes  # see `keys.sum_context`
    seed: Seed  # b of this group
    held: dict[Name, Shares]  # of all groups, by name
    agreed: Names | None = None  # the survivors that this group has signed


@dataclass(frozen=True)
class Setup:
    """What a group knows of a setup."""

    invitation: Invitation
    own: Advertisement
    encryption: bytes  # the private key c^SK
    secrets: dict[Number, Secrets]  # of the sums that are not used up
    roll: tuple[Advertisement, ...] = ()  # of all groups, once shares are dealt

    @cached_property
    def context(self) -> bytes:
        """See `Roll.context`."""
        return Roll(self.roll).context(self.invitation)


@dataclass(frozen=True)
class Memory:
    """All that a group keeps of a run's sums."""

    last: int = 0  # no sum up to this number will be set up or masked any more
    setup: Setup | None = None
    masked: Masked | None = None
    opened: dict[int, Names] = field(default_factory=dict)
    """The survivors with whom a sum of a round was opened; of the last such round alone."""
    alike: Names | None = None
    """The survivors of the run's sums that are alike, see `Meaning`."""


@dataclass(frozen=True)
class MemoryFile:
    """Where a group keeps its memory of one run."""

    path: Path

    def read(self) -> Memory:
        """What is kept; nothing, at first.

        Raises:
            FederationError: it is damaged.
        """
        if not self.path.exists():
            return Memory()
        try:
            return read(Memory, self.path.read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise FederationError(
                f"this node cannot read {self.path.name}, its secrets of the run's sums, in "
                f"{self.path.parent.name}: start a new run. An older copy of the file does harm: "
                "this node would mask a sum again that it has masked"
            ) from error

    def alone(self) -> AbstractContextManager[object]:
        """Keep other processes of this node out: two messages at once could be answered twice.

        For the sums of all runs there is one lock, outside the directories that they have.
        """
        place = self.path.parent.parent
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        busy = "this node answers another message of a secure sum"
        return held(place / "sums.lock", busy, _WAIT_SECONDS)

    def forget_after(self, seconds: float) -> None:
        """Forget secrets that have not been used for so long; what was done with them is kept.

        The file stays, so that nothing of the run is done again.
        """
        with self.alone():
            if self.path.exists() and self.path.stat().st_mtime < time.time() - seconds:
                memory = self.read()
                self.write(replace(memory, setup=None, masked=None))

    def write(self, memory: Memory) -> None:
        """Keep something else.

        Raises:
            FederationError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.path, write(memory), secret=True)
            for directory in (self.path.parent, self.path.parent.parent):
                sync_directory(directory)
        except OSError as error:
            raise FederationError(
                f"this node cannot keep its secrets of the run's sums: {error.strerror}"
            ) from error
