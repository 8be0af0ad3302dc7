"""How a machine's CPUs and GPUs are shared out over simulated clients."""

import os
import sys
from dataclasses import dataclass

from pluralllm_app.core.wording import many
from pluralllm_app.errors import UserError


@dataclass(frozen=True)
class Resources:
    """What the simulated clients run on: `actors` processes take turns at `supernodes` clients."""

    supernodes: int
    actors: int
    threads: int
    """CPUs, and so torch threads, of each actor."""
    gpus: int = 0
    gpu_share: float = 0.0
    """Share of one GPU of each actor; 0 hides the GPUs from it."""

    def __str__(self) -> str:
        """As a user reads it: the groups, the processes, and what each process has."""
        processes = many(self.actors, "process", "processes")
        gpu = f", {self.gpu_share:g} GPU each" if self.gpus else ""
        groups, threads = many(self.supernodes, "group"), many(self.threads, "thread")
        return f"{groups} on {processes} of {threads}{gpu}"


def usable_cpus() -> int:
    """How many CPUs this process may run on; a job may have fewer than the machine."""
    if sys.platform == "darwin":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def share_out(groups: int, threads: int, actors: int | None, cpus: int, gpus: int) -> Resources:
    """Share a machine's CPUs and GPUs out over the actors of `groups` simulated clients.

    Args:
        groups: how many clients there are, one for each group.
        threads: of each actor.
        actors: how many processes, even where they oversubscribe the CPUs; None: as many as the
            CPUs hold, at most one for each group.
        cpus: that there are.
        gpus: that there are.

    Raises:
        UserError: nothing could run.
    """
    if groups < 1:
        raise UserError("the survey has no groups to simulate: prepare one with at least one group")
    if threads < 1:
        raise UserError(f"an actor cannot run on {threads} threads: ask for at least 1")
    if actors is None:
        actors = min(groups, max(1, cpus // threads))
    if not 1 <= actors <= groups:
        raise UserError(f"{actors} actors cannot serve {groups} groups: ask for 1 to {groups}")
    if gpus == 0:
        return Resources(groups, actors, threads)
    # An actor's share must lie on one GPU, and Ray counts in steps of 1e-4. With 2 GPUs for 3
    # actors, each gets a half: only one share of two thirds would fit on a GPU.
    return Resources(groups, actors, threads, gpus, 10_000 // -(-actors // gpus) / 10_000)
