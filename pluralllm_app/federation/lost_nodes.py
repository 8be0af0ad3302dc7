"""Waiting for nodes that went away in a round, where it would end for want of them.

A node that is killed and started again is back within a minute or so: the SuperLink first has to
notice that it was gone. What the round has learned until then is thrown away, and the round is
repeated with the same weights and the same seeds, so that it gives what it would have given.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from flwr.serverapp import Grid

from pluralllm_app.federation.heard import Heard
from pluralllm_app.records.schema import Waiting
from pluralllm_app.records.writer import RunRecord
from pluralllm_app.settings import FederationSettings

LOOK_SECONDS = 1.0
REPEATS = 3  # of a round, at most: nodes that go away each time end it


class LostNodes:
    """Waits for the nodes that went away in one round.

    Args:
        grid: of the nodes.
        federation: settings of the run.
        nodes: the id of each group's node.
        record: says for whom the run waits.
        progress: called with a line for the log.
    """

    def __init__(
        self,
        grid: Grid,
        federation: FederationSettings,
        nodes: Mapping[str, int],
        record: RunRecord,
        progress: Callable[[str], None],
    ) -> None:
        self._grid = grid
        self._seconds = federation.grace_period
        self._nodes = nodes
        self._record = record
        self._progress = progress
        self._repeats = 0

    def come_back(self, number: int, heard: Heard, quorum: int) -> bool:
        """Wait for nodes without which a round has no quorum; whether to repeat it with them.

        Args:
            number: of the round.
            heard: what its replies said.
            quorum: fewer groups than these end it.
        """
        away = {failure.group for failure in heard.lost} & heard.away
        needed = quorum - len(heard.trained)
        if not self._seconds or self._repeats == REPEATS or not 0 < needed <= len(away):
            return False
        self._repeats += 1
        until = (datetime.now(UTC) + timedelta(seconds=self._seconds)).isoformat("T", "seconds")
        waiting = Waiting(round=number, groups=sorted(away), until=until)
        self._progress(f"round {number}: waiting until {until} for {', '.join(waiting.groups)}")
        self._record.update(waiting=waiting)
        try:
            back = self._back(away, time.monotonic() + self._seconds)
        finally:
            self._record.update(waiting=None)
        self._progress(f"round {number}: back are {', '.join(sorted(back)) or 'none of them'}")
        return len(back) >= needed

    def _back(self, away: set[str], deadline: float) -> set[str]:
        """The groups whose nodes are there in two looks, one after the other.

        One that is let in for the first time since it was killed leaves at once, to be missed.
        """
        before: set[str] = set()
        while True:
            connected = set(self._grid.get_node_ids())
            there = {group for group in away if self._nodes[group] in connected}
            found, before = there & before, there
            if found == away or time.monotonic() >= deadline:
                return found
            time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0)))
