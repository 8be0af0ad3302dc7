"""The server's part in secure sums: the exchanges of a setup, and those that open a sum."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.heard import Heard, causes, read_reply
from pluralllm_app.federation.meaning import meaning_of
from pluralllm_app.federation.messages import record_of
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
from pluralllm_app.federation.secure_settings import (
    check_alike,
    checked_threshold,
    scores_threshold,
)
from pluralllm_app.federation.state import UsedSums
from pluralllm_app.federation.summands import MASKED, Summands, masked_form
from pluralllm_app.learning.base import Contribution, Form, Request
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.records.schema import Failure, Phase, SecureSum
from pluralllm_app.scoring.results import Role
from pluralllm_app.secure_sum.messages import (
    Advertisement,
    Agreement,
    Dealt,
    Invitation,
    Meaning,
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
from pluralllm_app.secure_sum.signing import identity_of
from pluralllm_app.settings import Settings

MOST_AT_ONCE = 16  # sums of a setup
WITHOUT_ONE = 4  # of a setup in which a group was lost: it is back in the next one
QUERY = "query.secure_sum"

Content = TypeVar("Content")


@dataclass
class _Sum:
    """The sum that is being made."""

    server: ServerSum
    summands: Summands
    sent: Arrays
    meaning: Meaning
    since: float
    bytes: int = 0
    exchanges: int = 0  # besides that of the vectors


class SecureSums:
    """Secure sums over the groups of one role, one after the other.

    Args:
        grid: of the nodes.
        settings: of the run.
        roster: its groups.
        experiment: 32 hexadecimal digits that name these sums.
        used: what was used up of them, which changes with each.
        save: keeps it, for where the run is resumed.
        progress: called with a line for the log.
        scored: the role of the groups whose scores are summed; None: contributions are.
    """

    def __init__(
        self,
        grid: Grid,
        settings: Settings,
        roster: Roster,
        experiment: str,
        used: UsedSums,
        save: Callable[[], None],
        progress: Callable[[str], None],
        scored: Role | None = None,
    ) -> None:
        self.grid = grid
        self._settings = settings
        self.federation = settings.federation
        self.roster = roster
        self._groups = roster.of_role(scored or "train")
        self._phase: Phase = "evaluate" if scored else "train"
        self._experiment = experiment
        self._used = used
        self._save = save
        self.progress = progress
        if scored:
            self.threshold = self.needed = scores_threshold(scored, len(self._groups))
        else:
            self.threshold = checked_threshold(settings, len(self._groups))
            self.needed = max(self.threshold, settings.federation.min_train_groups)
        self._ready: ReadySums | None = None
        self._numbers: list[int] = []  # of the setup, that are not used up
        self._bytes, self._exchanges = 0, 0  # of setups, since the last sum
        self._sum: _Sum | None = None

    def begin(
        self, form: Form, sent: Arrays, request: Request, left: int, heard: Heard
    ) -> list[str]:
        """Take the next sum, after a setup where all are used up.

        Args:
            form: of contributions, before they are masked.
            sent: what groups are sent.
            request: what all of them are asked.
            left: sums that are to come in this run, this one among them.
            heard: is told of groups that are lost in a setup.

        Returns:
            Its cohort.

        Raises:
            FederationError: too few groups are left.
        """
        since = time.perf_counter()
        if not self._numbers:
            self._set_up(min(left, MOST_AT_ONCE), request.round, heard, alike=not form.weighs)
        ready, number = self._ready, self._numbers.pop(0)
        assert ready, "made by the setup"
        weights = {each.group: float(each.weight) for each in ready.roll.advertisements}
        summands = Summands.of(form, weights, self.federation.weight_cap)
        meaning = meaning_of(self._settings, request, sent, summands)
        server = ServerSum(ready, number, meaning, summands.layout.length)
        self._sum = _Sum(server, summands, sent, meaning, since, self._bytes, self._exchanges)
        self._bytes, self._exchanges = 0, 0
        return list(ready.invitation.cohort)

    @property
    def _current(self) -> _Sum:
        assert self._sum, "a sum was begun"
        return self._sum

    @property
    def fewest(self) -> int:
        """Without so many groups, the sum that was begun stays closed."""
        if self._sum and self._sum.meaning.alike:
            return max(self.needed, len(self._used.alike))
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

        `heard` is told of means of their metrics.

        Raises:
            FederationError: they are too few, or too few groups open it, or its masks do not
                cancel.
        """
        for _ in contributions:
            pass  # `add` has taken them
        found = self.total(heard)
        heard.means = found.metrics
        yield found

    def total(self, heard: Heard) -> Contribution:
        """The sum of what `add` was given.

        Raises:
            FederationError: see `opened`.
        """
        current = self._current
        server = current.server
        if len(server.survivors) < self.needed:
            raise FederationError(
                f"{len(server.survivors)} groups are in a sum that needs {self.needed}"
            )
        if current.meaning.alike:
            check_alike(self._used.alike, server.survivors)
            self._used.alike = list(server.survivors)
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
        finally:
            if self._phase == "evaluate":
                heard.missed += lost
        for failure in lost:
            self.progress(f"opening a sum: {failure.group} failed: {failure.reason}")
        current.bytes += self._bytes
        current.exchanges += self._exchanges
        self._bytes, self._exchanges = 0, 0
        found = current.summands.contribution(current.sent, total, server.survivors)
        return found

    def entry(self) -> SecureSum:
        """What is recorded of the sum that was opened last."""
        current = self._current
        return SecureSum(
            groups=len(current.server.survivors),
            cohort=len(current.server.invitation.cohort),
            threshold=self.threshold,
            exchanges=current.exchanges,
            bytes=current.bytes,
            seconds=round(time.perf_counter() - current.since, 3),
            bits=current.summands.layout.bits,
        )

    def _set_up(self, count: int, round_number: int, heard: Heard, alike: bool) -> None:
        """Make keys for so many sums; groups that are lost meanwhile have no part in them."""
        cohort = tuple((alike and self._used.alike) or self._groups)
        while True:
            if alike:
                check_alike(self._used.alike, cohort)
            if len(cohort) < self.needed:
                raise FederationError(
                    f"{len(cohort)} groups can take part in a secure sum that needs {self.needed}"
                    f": {causes(self._failures(heard))}"
                )
            first = self._used.last + 1
            self._used.last += count
            self._save()
            invitation = Invitation(self._experiment, first, count, self.threshold, cohort)
            advertised = self._ask(
                *(cohort, ADVERTISE, invitation, Advertisement),
                partial(self._check_advertisement, invitation, set()),
                *(round_number, self._failures(heard), heard),
            )
            if len(advertised) == len(cohort):
                roll = Roll(tuple(advertised[name] for name in cohort))
                dealt = self._ask(
                    *(cohort, DEAL, roll, Dealt),
                    lambda name, found: check_dealt(found, name, invitation),  # noqa: B023
                    *(round_number, self._failures(heard), heard),
                )
                if len(dealt) == len(cohort):
                    break
                cohort = tuple(dealt)
            else:
                cohort = tuple(advertised)
            count = min(count, WITHOUT_ONE)
        self._ready, self._numbers = ReadySums(invitation, roll, dealt), list(invitation.numbers)

    def _failures(self, heard: Heard) -> list[Failure]:
        return heard.missed if self._phase == "evaluate" else heard.lost

    def _check_advertisement(
        self, invitation: Invitation, taken: set[bytes], name: str, found: Advertisement
    ) -> None:
        key = self.roster.keys.get(name)
        check_advertisement(found, name, invitation, key and identity_of(key), taken)
        weight = self.roster.weight(name, self._settings)
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
            Message(record, self.roster.nodes[name], QUERY, group_id=str(round_number))
            for name in names
        ]
        self._exchanges += 1
        self._bytes += len(messages) * len(write(content))
        by_node = {self.roster.nodes[name]: name for name in names}

        def read_answer(name: str, answer: RecordDict) -> Content:
            answered = record_of(answer, SECURE_SUM, ConfigRecord).get(CONTENT)
            if not isinstance(answered, bytes):
                raise ValueError("it is no message of a secure sum")
            self._bytes += len(answered)
            found = read(kind, answered)
            check(name, found)
            return found

        found: dict[str, Content] = {}
        for node, reply in exchange(self.grid, messages, self.federation.round_timeout):
            name = by_node[node]
            heard_reply = heard.reply_of(name, reply)
            answer = read_reply(self._phase, name, heard_reply, read_answer, failures)
            if answer is not None:
                found[name] = answer
        return found
