"""The server's part in secure sums: the exchanges of a setup, and those that open a sum."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.current_sum import CurrentSum
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.heard import Heard, causes, read_reply
from pluralllm_app.federation.meaning import counts_request, meaning_of
from pluralllm_app.federation.messages import (
    ARRAYS,
    arrays_to_record,
    record_of,
    record_to_arrays,
)
from pluralllm_app.federation.roster import Roster
from pluralllm_app.federation.secure_group import (
    ADVERTISE,
    AGREE,
    CONTENT,
    DEAL,
    MASK,
    OPEN,
    SECURE_SUM,
    pack,
)
from pluralllm_app.federation.secure_settings import check_alike, checked_threshold
from pluralllm_app.federation.state import RunState
from pluralllm_app.federation.summands import MASKED, Summands, masked_form
from pluralllm_app.learning.base import Contribution, Form, Learner, Request, State
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.records.schema import Failure, SecureSum
from pluralllm_app.secure_sum.messages import (
    Advertisement,
    Agreement,
    Dealt,
    Invitation,
    Opening,
    Roll,
    read,
    write,
)
from pluralllm_app.secure_sum.server import (
    ReadySums,
    ServerSum,
    check_advertisement,
    check_dealt,
)
from pluralllm_app.settings import Settings

MOST_AT_ONCE = 16  # sums of a setup
WITHOUT_ONE = 4  # of a setup in which a group was lost: it is back in the next one
QUERY, COUNTS = "query.secure_sum", "query.secure_counts"

Content = TypeVar("Content")


class SecureSums:
    """Secure sums over the train groups of a run, one after the other.

    Args:
        grid: of the nodes.
        settings: of the run.
        roster: its groups.
        state: of the run, in which it is kept what sums were used up.
        save: keeps the state, for where the run is resumed.
        progress: called with a line for the log.
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
        self._grid = grid
        self._settings = settings
        self._federation = settings.federation
        self._roster = roster
        self._experiment = state.experiment
        self._state = state
        self._save = save
        self._progress = progress
        self.threshold = checked_threshold(settings, len(roster.of_role("train")))
        self.needed = max(self.threshold, settings.federation.min_train_groups)
        self._ready: ReadySums | None = None
        self._numbers: list[int] = []  # of the setup, that are not used up
        self._bytes, self._exchanges = 0, 0  # of setups, since the last sum
        self._sum: CurrentSum | None = None

    def begin(self, form: Form, sent: Arrays, request: Request, heard: Heard) -> list[str]:
        """Take the next sum, after a setup where all are used up.

        Args:
            form: of contributions, before they are masked.
            sent: what groups are sent.
            request: what all of them are asked.
            heard: is told of groups that are lost in a setup.

        Returns:
            Its cohort.

        Raises:
            FederationError: too few groups are left.
        """
        since = time.perf_counter()
        if not self._numbers:
            left = self._federation.rounds - request.round + 1
            self._set_up(min(left, MOST_AT_ONCE), request.round, heard, alike=not form.weighs)
        ready, number = self._ready, self._numbers.pop(0)
        assert ready, "made by the setup"
        weights = {each.group: float(each.weight) for each in ready.roll.advertisements}
        summands = Summands.of(form, weights, self._federation.weight_cap)
        meaning = meaning_of(self._settings, request, sent, summands)
        server = ServerSum(ready, number, meaning, summands.layout.length)
        self._sum = CurrentSum(server, summands, sent, meaning, since, self._bytes, self._exchanges)
        self._bytes, self._exchanges = 0, 0
        return list(ready.invitation.cohort)

    @property
    def _current(self) -> CurrentSum:
        assert self._sum, "a sum was begun"
        return self._sum

    @property
    def fewest(self) -> int:
        """Without so many groups, the sum that was begun stays closed."""
        if self._sum and self._sum.meaning.alike:
            return max(self.needed, len(self._state.alike))
        return self.needed

    @property
    def form(self) -> Form:
        """What contributions to the sum that was begun look like on their way."""
        return masked_form(self._current.summands.layout.length)

    def record(self, name: str) -> ConfigRecord:
        """What asks a group for its masked vector, in a message with what it is sent."""
        assert self._ready, "a sum was begun"
        content = self._ready.request(self._current.server.number, name)
        self._current.bytes += len(write(content))
        return pack(self._experiment, MASK, content)

    def add(self, name: str, arrays: Arrays) -> None:
        """Take a group's masked vector; raises ValueError where it is none, or the second."""
        self._current.server.add(name, arrays[MASKED])
        self._current.bytes += arrays[MASKED].nbytes

    def opened(self, contributions: Iterator[Contribution], heard: Heard) -> Iterator[Contribution]:
        """The sum of the masked contributions, as one, once all of them have come.

        Raises:
            FederationError: they are too few, or too few groups open it, or its masks do not
                cancel.
        """
        for _ in contributions:
            pass  # `add` has taken them
        current = self._current
        server = current.server
        if len(server.survivors) < self.needed:
            raise FederationError(
                f"{len(server.survivors)} groups are in a sum that needs {self.needed}"
            )
        if current.meaning.alike:
            check_alike(self._state.alike, server.survivors)
            self._state.alike = list(server.survivors)
            self._save()
            self._numbers = self._numbers if server.whole else []
        agreements: Mapping[str, Agreement] = {}
        lost: list[Failure] = []
        if not server.whole:
            agreements = self._ask(
                *(server.survivors, AGREE, server.agree_request(), Agreement),
                *(server.check_agreement, current.meaning.round, lost, heard),
            )
        asked = server.survivors if server.whole else tuple(agreements)
        try:
            openings = self._ask(
                *(asked, OPEN, server.open_request(agreements), Opening),
                *(server.check_opening, current.meaning.round, lost, heard),
            )
            total = server.total(openings)
        except FederationError as error:
            raise FederationError(f"{error}: {causes(lost)}" if lost else str(error)) from error
        for failure in lost:
            self._progress(f"opening a sum: {failure.group} failed: {failure.reason}")
        current.bytes += self._bytes
        current.exchanges += self._exchanges
        self._bytes, self._exchanges = 0, 0
        found = current.summands.contribution(current.sent, total, server.survivors)
        heard.means = found.metrics
        yield found

    def counted(self, learner: Learner, state: State) -> State:
        """The state of a learner once what it needs to know before the first round is summed.

        Raises:
            FederationError: see `begin` and `opened`.
        """
        form = Form(learner.count_forms(state.sent), {})
        if not form.arrays:
            return state
        try:
            totals = self.total(COUNTS, form, state.sent, counts_request(self._experiment))
        except FederationError as error:
            raise FederationError(f"before round 1: {error}") from error
        return learner.counted(state, totals)

    def total(self, query: str, form: Form, sent: Arrays, request: Request) -> Arrays:
        """A sum in an exchange of its own, without local steps.

        Args:
            query: kind of the messages.
            form: of what groups answer, before it is masked.
            sent: what they are sent.
            request: what stands for a request.

        Raises:
            FederationError: see `begin` and `opened`.
        """
        heard = Heard(time.perf_counter())
        cohort = self.begin(form, sent, request, heard)
        arrays = arrays_to_record(sent)
        messages = [
            Message(
                RecordDict({ARRAYS: arrays, SECURE_SUM: self.record(name)}),
                *(self._roster.nodes[name], query),
                group_id=str(request.round),
            )
            for name in cohort
        ]
        names = {self._roster.nodes[name]: name for name in cohort}

        def take(name: str, content: RecordDict) -> Contribution:
            found = record_to_arrays(record_of(content, ARRAYS, ArrayRecord))
            self.form.check_arrays(found)
            self.add(name, found)
            return Contribution({}, 1.0, {})

        for node, reply in exchange(self._grid, messages, self._federation.round_timeout):
            name = names[node]
            read_reply("train", name, heard.reply_of(name, reply), take, heard.lost)
        try:
            (total,) = self.opened(iter(()), heard)
        except FederationError as error:
            raise FederationError(f"{error}: {causes(heard.lost)}") from error
        for failure in heard.lost:
            self._progress(f"{query}: {failure.group} failed: {failure.reason}")
        return total.arrays

    def entry(self) -> SecureSum:
        """What is recorded of the sum that was opened last."""
        return self._current.entry(self.threshold)

    def _set_up(self, count: int, round_number: int, heard: Heard, alike: bool) -> None:
        """Make keys for so many sums; groups that are lost meanwhile have no part in them."""
        cohort = tuple((alike and self._state.alike) or self._roster.of_role("train"))
        while True:
            if alike:
                check_alike(self._state.alike, cohort)
            if len(cohort) < self.needed:
                raise FederationError(
                    f"{len(cohort)} groups can take part in a secure sum that needs {self.needed}"
                    f": {causes(heard.lost)}"
                )
            first = self._state.sums + 1
            self._state.sums += count
            self._save()
            invitation = Invitation(self._experiment, first, count, self.threshold, cohort)
            advertised = self._ask(
                *(cohort, ADVERTISE, invitation, Advertisement),
                partial(self._check_advertisement, invitation),
                *(round_number, heard.lost, heard),
            )
            if len(advertised) == len(cohort):
                roll = Roll(tuple(advertised[name] for name in cohort))
                dealt = self._ask(
                    *(cohort, DEAL, roll, Dealt),
                    lambda name, found: check_dealt(found, name, invitation),  # noqa: B023
                    *(round_number, heard.lost, heard),
                )
                if len(dealt) == len(cohort):
                    break
                cohort = tuple(dealt)
            else:
                cohort = tuple(advertised)
            count = min(count, WITHOUT_ONE)
        self._ready, self._numbers = ReadySums(invitation, roll, dealt), list(invitation.numbers)

    def _check_advertisement(self, invitation: Invitation, name: str, found: Advertisement) -> None:
        check_advertisement(found, name, invitation)
        weight = 1 if self._federation.weighting == "uniform" else self._roster.groups[name].pool
        if found.weight != weight:
            raise ValueError(f"it advertises the weight {found.weight}, and has {weight}")

    def _ask(
        self,
        names: Sequence[str],
        step: str,
        content: object,
        kind: type[Content],
        check: Callable[[str, Content], None],
        round_number: int,
        failures: list[Failure],
        heard: Heard,
    ) -> dict[str, Content]:
        """An exchange of the protocol; the good answers, by group, in the order of `names`."""
        record = RecordDict({SECURE_SUM: pack(self._experiment, step, content)})
        messages = [
            Message(record, self._roster.nodes[name], QUERY, group_id=str(round_number))
            for name in names
        ]
        self._exchanges += 1
        self._bytes += len(messages) * len(write(content))
        by_node = {self._roster.nodes[name]: name for name in names}

        def read_answer(name: str, answer: RecordDict) -> Content:
            answered = record_of(answer, SECURE_SUM, ConfigRecord).get(CONTENT)
            if not isinstance(answered, bytes):
                raise ValueError("it is no message of a secure sum")
            self._bytes += len(answered)
            found = read(kind, answered)
            check(name, found)
            return found

        found: dict[str, Content] = {}
        for node, reply in exchange(self._grid, messages, self._federation.round_timeout):
            name = by_node[node]
            heard_reply = heard.reply_of(name, reply)
            answer = read_reply("train", name, heard_reply, read_answer, failures)
            if answer is not None:
                found[name] = answer
        return found
