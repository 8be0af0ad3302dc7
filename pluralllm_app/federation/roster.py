"""Which node holds which group: built by a query round before anything is trained."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.exchange import NOT_CONNECTED, WENT_AWAY, exchange
from pluralllm_app.federation.fitting import Known, check_agreement, fault_of, of_most
from pluralllm_app.federation.flower_compat import error_reason, node_was_lost
from pluralllm_app.federation.messages import NodeDescription
from pluralllm_app.federation.peers import introduction
from pluralllm_app.federation.registration import WHOSE, Registered
from pluralllm_app.scoring.evaluation import check_groups, size_fault
from pluralllm_app.settings import Settings

POLL_SECONDS = 0.1
SETTLE_SECONDS = 0.3  # without expected-nodes: how long no node must join or leave


@dataclass(frozen=True)
class Roster:
    """The groups of a run by name, and the nodes that hold them."""

    groups: Mapping[str, NodeDescription]  # sorted by name
    nodes: Mapping[str, int]  # group -> node id
    keys: Mapping[str, bytes] = field(default_factory=dict)
    """PEM of the public keys of the registered groups' nodes."""

    @property
    def names(self) -> dict[int, str]:
        """Group by node id."""
        return {node: name for name, node in self.nodes.items()}

    def weight(self, name: str, settings: Settings) -> int:
        """How much the update of a group counts, before it is capped."""
        return 1 if settings.federation.weighting == "uniform" else self.groups[name].pool

    def scored(self, settings: Settings) -> list[str]:
        """Names of the groups that are scored, sorted.

        Raises:
            FederationError: there are none.
        """
        if settings.federation.noise != "groups":
            return list(self.groups)
        if not (found := self.of_role("evaluation")):
            raise FederationError(
                "with noise = 'groups' train groups are not scored, and there are no others: add a "
                "group that never trains, whose node has no most-epsilon"
            )
        return found

    def of_role(self, role: str) -> list[str]:
        """Names of the groups of one role, sorted."""
        return [name for name, group in self.groups.items() if group.role == role]

    @property
    def survey(self) -> NodeDescription:
        """Any node's description: what it says of the survey is the same for all."""
        return next(iter(self.groups.values()))


def build_roster(
    grid: Grid,
    settings: Settings,
    expected: int,
    progress: Callable[[str], None],
    registered: Registered | None = None,
    known: Known | None = None,
) -> Roster:
    """Wait for the nodes, ask each for its group, and check that they fit together.

    A node that is lost before it answers, as one that was killed lately, is waited for again. The
    nodes of a simulation say how many there are: all of them take part.

    Args:
        expected: how many nodes to wait for; 0: the quorum.
        registered: the nodes that may take part; None: all of them may. One that fails to answer,
            says of itself what is not registered, or has another survey or version, is refused,
            and the run does without it where as many as expected are left.
        known: the survey of the run, for nodes that are registered; None: that of most of them.

    Raises:
        FederationError: too few nodes within `start-timeout`, a node that fails to answer or does
            not fit the others (named by group), or groups the settings cannot train or score.
    """
    roster = gathered(grid, settings, expected, progress, registered, known)
    check_groups(
        [
            (group.group, group.role, group.questions, group.pool)
            for group in roster.groups.values()
        ],
        settings,
    )
    return roster


def gathered(
    grid: Grid,
    settings: Settings,
    expected: int,
    progress: Callable[[str], None],
    registered: Registered | None = None,
    known: Known | None = None,
) -> Roster:
    """The groups of the nodes, whatever can be done with them; see `build_roster`."""
    described = _Asked(grid, settings, expected, progress, registered, known).described()
    check_agreement(list(described.values()))
    by_name = sorted((item.group, node_id) for node_id, item in described.items())
    members = registered.members if registered else {}
    return Roster(
        groups={name: described[node_id] for name, node_id in by_name},
        nodes=dict(by_name),
        keys={member.name: key for key, member in members.items()},
    )


class _Asked:
    """Waits for the nodes of a run and asks each for its group, see `build_roster`."""

    def __init__(
        self,
        grid: Grid,
        settings: Settings,
        expected: int,
        progress: Callable[[str], None],
        registered: Registered | None,
        known: Known | None,
    ) -> None:
        self._grid = grid
        self._settings = settings
        self._federation = settings.federation
        self._expected = expected
        self._progress = progress
        self._registered = registered
        self._survey = known
        self._known: dict[int, NodeDescription] = {}

    def described(self) -> dict[int, NodeDescription]:
        """What the nodes say of themselves, by their ids, once all that must be there said it."""
        deadline = time.monotonic() + self._federation.start_timeout
        while True:
            node_ids = self._wait(deadline)
            refused = self._ask([own for own in node_ids if own not in self._known])
            if refused:
                self._check_enough()
                continue
            there = {own: self._known[own] for own in node_ids if own in self._known}
            said = {node.nodes for node in there.values()}
            if len(said) == 1:  # the nodes of a simulation agree; one among others isn't believed
                self._expected = max(self._expected, *said)
            if len(there) == len(node_ids) >= self._expected:
                if not self._refuse_odd(there):
                    return there
                continue
            if len(there) < len(node_ids) and time.monotonic() > deadline:
                fault = (
                    "was lost before it said which group it holds, and is not back within "
                    f"start-timeout = {self._federation.start_timeout:g} s: start it again"
                )
                for own in node_ids:
                    if own not in there:  # or a node that only says that it was lost
                        self._refuse(own, fault)
                self._check_enough()
                continue
            time.sleep(POLL_SECONDS)

    def _node_ids(self) -> list[int]:
        """Ids of the nodes that are connected and may take part, sorted."""
        if self._registered:
            return self._registered.ids(self._grid)
        return sorted(self._grid.get_node_ids())

    def _ask(self, node_ids: list[int]) -> bool:
        """Ask nodes to describe themselves, and keep what they say; whether one was refused.

        Those that are lost before they answer are left out.
        """
        content = RecordDict()
        if self._registered:
            content = introduction(self._registered.members, self._federation.scores)
        messages = [Message(content, node_id, MessageType.QUERY) for node_id in node_ids]
        refused = False
        for node_id, reply in exchange(self._grid, messages, self._federation.round_timeout):
            if reply in (NOT_CONNECTED, WENT_AWAY):
                continue
            if not isinstance(reply, str) and node_was_lost(reply):
                continue
            try:
                said = _description(reply)
            except ValueError as error:
                self._refuse(node_id, str(error))
                refused = True
                continue
            if self._registered and not self._admitted(node_id, said):
                refused = True
            else:
                self._known[node_id] = said
        return refused

    def _admitted(self, node_id: int, said: NodeDescription) -> bool:
        assert self._registered, "else nobody is refused"
        settings = self._settings
        fault = self._registered.fault(node_id, said) or fault_of(said, self._survey)
        if not fault and settings.federation.purpose == "train":
            fault = size_fault(
                *(said.role, said.questions, said.pool), settings.training, settings.evaluation
            )
        if fault:
            self._registered.refuse(node_id, fault)
        return not fault

    def _refuse_odd(self, there: Mapping[int, NodeDescription]) -> bool:
        """Refuse registered nodes whose survey is not that of most; whether there were some."""
        if not self._registered or not (most := of_most(list(there.values()))):
            return False
        odd = {own: fault for own, said in there.items() if (fault := fault_of(said, most))}
        for own, fault in odd.items():
            self._registered.refuse(own, fault)
        if odd:
            self._check_enough()
        return bool(odd)

    def _check_enough(self) -> None:
        assert self._registered, "else nobody is refused"
        self._registered.check_enough(self._expected or self._federation.min_train_groups)

    def _refuse(self, node_id: int, fault: str) -> None:
        if self._registered is None:
            raise FederationError(f"node {node_id} {fault} ({WHOSE})")
        self._registered.refuse(node_id, fault)

    def _wait(self, deadline: float) -> list[int]:
        """Ids of the nodes, once the expected number is there, or enough and no more are coming."""
        federation = self._federation
        needed = self._expected or federation.min_train_groups
        settle = 0.0 if self._expected else SETTLE_SECONDS
        connected: list[int] | None = None
        while True:
            node_ids = self._node_ids()
            now = time.monotonic()
            if node_ids != connected:
                connected, changed = node_ids, now
                if len(node_ids) < needed:
                    self._progress(f"{len(node_ids)} of {needed} nodes are connected")
            if len(node_ids) >= needed and now - changed >= settle:
                return node_ids
            if len(node_ids) < needed and now > deadline:
                raise FederationError(self._too_few(len(node_ids), needed))
            time.sleep(POLL_SECONDS)

    def _too_few(self, there: int, needed: int) -> str:
        federation = self._federation
        # What a resumed run or a simulation needs is no setting.
        settings = {federation.expected_nodes: "expected-nodes", 0: "min-train-groups"}
        own = settings.get(self._expected)
        return (
            f"{there} of {needed} nodes connected within start-timeout = "
            f"{federation.start_timeout:g} s: start the others, or raise start-timeout"
            + (f", or lower {own}" if own else "")
            + (f"; {self._registered.told()}" if self._registered else "").rstrip("; ")
        )


def _description(reply: Message | str) -> NodeDescription:
    """What a node says of itself; raises ValueError where it does not."""
    if isinstance(reply, str):
        raise ValueError(
            f"did not say which group it holds, {reply}: restart it, or raise round-timeout"
        )
    if reply.has_error():
        raise ValueError(f"cannot take part: {error_reason(reply)}")
    try:
        return NodeDescription.from_content(reply.content)
    except ValueError as error:
        raise ValueError(f"cannot take part: {error}") from error
