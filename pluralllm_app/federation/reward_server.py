"""The server's half of rewards: ask the train groups how many of their people pick some options.

    asked.json       written by `pluralllm deploy reward`, before the run: {"rows": [...]}
    answered.json    what groups answered: `Shares`

Both lie in the directory `out` of the run, which leaves nothing else there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.bounds import check
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.fitting import check_number, known_survey
from pluralllm_app.federation.heard import Heard, causes, read_reply
from pluralllm_app.federation.messages import (
    ARRAYS,
    arrays_to_record,
    record_of,
    record_to_arrays,
)
from pluralllm_app.federation.registration import Member, Registered
from pluralllm_app.federation.reward_group import (
    ANSWERED,
    ROWS,
    SHARES,
    reward_form,
    reward_request,
)
from pluralllm_app.federation.roster import Roster, gathered
from pluralllm_app.federation.secure_counts import summed
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.federation.state import UsedSums
from pluralllm_app.learning.factors import CONTRIBUTORS
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.settings import Settings
from pluralllm_app.survey.questionnaire import read_questionnaire

_ROUNDING = 1e-6  # of a sum of shares; that of the masks is far below
ASKED, ANSWERS = "asked.json", "answered.json"
REWARD = "query.reward"


@dataclass(frozen=True)
class Shares:
    """What train groups answered to n options."""

    groups: list[str]
    contributors: list[int]  # [n] groups that have answered each
    sums: list[float] | None  # [n] of their shares; None: not asked for
    single: list[list[float | None]] | None  # [groups][n], None where not answered; or not asked

    def write(self, out: Path) -> None:
        """Write it to the directory of its run."""
        write_atomically(out / ANSWERS, msgspec.json.encode(self), secret=True)

    @classmethod
    def read(cls, out: Path) -> "Shares":
        """Read it back."""
        return msgspec.json.decode((out / ANSWERS).read_bytes(), type=cls)


@dataclass(frozen=True)
class Asked:
    """Which options a run asks for."""

    rows: list[int]  # of the survey's options, ascending

    def write(self, out: Path) -> None:
        """Write it to the directory of its run."""
        write_atomically(out / ASKED, msgspec.json.encode(self), secret=True)


def run_rewards(
    grid: Grid,
    settings: Settings,
    progress: Callable[[str], None],
    members: Mapping[bytes, Member] | None = None,
) -> None:
    """Ask the train groups for shares of options, and write what comes of it.

    Args:
        grid: of the nodes.
        settings: of the run.
        progress: called with a line for the log.
        members: in a deployment, the registered groups by the public keys of their nodes.

    Raises:
        UserError: nobody said for which options; or see `asked_shares`.
    """
    out = settings.path("out")
    try:
        rows = msgspec.json.decode((out / ASKED).read_bytes(), type=Asked).rows
    except (OSError, msgspec.MsgspecError) as error:
        raise FederationError(
            f"{out / ASKED} cannot be read ({error}): purpose = 'rewards' is for `pluralllm deploy "
            "reward`, which writes it"
        ) from error
    asked_shares(grid, settings, np.array(rows, np.int64), progress, members).write(out)


def asked_shares(
    grid: Grid,
    settings: Settings,
    rows: Ints,
    progress: Callable[[str], None] = lambda line: None,
    members: Mapping[bytes, Member] | None = None,
) -> Shares:
    """What all train groups answered to options of the survey.

    Groups that never train are not asked: what a policy learns from them could not be measured on
    them.

    Args:
        rows: [n] of the survey's options, ascending.

    Raises:
        UserError: a group is not there, refuses, or answers what cannot be; too few groups for a
            secure sum; or their survey is not the server's.
    """
    registered = None
    if members is not None:
        train = {key: member for key, member in members.items() if member.role == "train"}
        registered = Registered(train, progress)
    place = settings.questionnaire or settings.path("survey")
    known = known_survey(place) if registered else None
    expected = settings.federation.expected_nodes
    roster = gathered(grid, settings, expected, progress, registered, known)
    questionnaire = read_questionnaire(place, roster.survey.fingerprint)
    check_number(roster.survey.survey_questions, questionnaire)
    asked = _Asked(grid, settings, roster, progress)
    if settings.federation.privacy == "none":
        return asked.single(rows, questionnaire.question_set)
    return asked.summed(rows)


class _Asked:
    """Asks the train groups of a roster."""

    def __init__(
        self, grid: Grid, settings: Settings, roster: Roster, progress: Callable[[str], None]
    ) -> None:
        self._grid = grid
        self._settings = settings
        self._roster = roster
        self._progress = progress
        self._groups = roster.of_role("train")

    def single(self, rows: Ints, questions: QuestionSet) -> Shares:
        """The shares of each group."""
        sent = {ROWS: rows}
        content = RecordDict({ARRAYS: arrays_to_record(sent)})
        names = {self._roster.nodes[name]: name for name in self._groups}
        messages = [Message(content, node, REWARD, group_id="0") for node in names]
        question = np.searchsorted(questions.first_rows, rows, side="right") - 1
        heard, found = Heard(time.perf_counter()), {}

        def read(name: str, content: RecordDict) -> Arrays:
            return checked_shares(content, sent, question)

        timeout = self._settings.federation.round_timeout
        for node, reply in exchange(self._grid, messages, timeout):
            name = names[node]
            found[name] = read_reply(
                "evaluate", name, heard.reply_of(name, reply), read, heard.missed
            )
        if heard.missed:
            raise FederationError(f"groups gave no rewards: {causes(heard.missed)}")
        answers = [each for name in self._groups if (each := found[name]) is not None]
        answered = np.array([each[ANSWERED] for each in answers])
        return Shares(
            groups=self._groups,
            contributors=answered.sum(axis=0).astype(int).tolist(),
            sums=None,
            single=[
                [share if has else None for share, has in zip(*both, strict=True)]
                for both in ((each[SHARES].tolist(), each[ANSWERED].tolist()) for each in answers)
            ],
        )

    def summed(self, rows: Ints) -> Shares:
        """The sums of all groups' shares, 0 where fewer than min-contributors have answered."""
        experiment = uuid4().hex
        sums = SecureSums(
            *(self._grid, self._settings, self._roster, experiment, UsedSums()),
            *(lambda: None, self._progress),
        )
        answered = self._total(sums, {ROWS: rows}, experiment)[ANSWERED]
        _check_sum(answered, np.full(len(rows), float(len(self._groups))))
        contributors = np.rint(answered).astype(np.int64)
        fewest = self._settings.federation.min_contributors
        shares = np.zeros(len(rows))
        if (contributors >= fewest).any():
            sent = {ROWS: rows, CONTRIBUTORS: contributors}
            shares = self._total(sums, sent, experiment)[SHARES]
            _check_sum(shares, answered)
        return Shares(self._groups, contributors.tolist(), shares.tolist(), None)

    def _total(self, sums: SecureSums, sent: Arrays, experiment: str) -> Mapping[str, Doubles]:
        request = reward_request(sent, experiment)
        try:
            form = reward_form(sent, secure=True)
            return summed(sums, REWARD, form, sent, request, left=2 - request.round)
        except FederationError as error:
            raise FederationError(
                f"no sum of rewards: {error}. Ask again when the nodes of all groups are there"
            ) from error


def _check_sum(total: Doubles, most: Doubles) -> None:
    """Raise FederationError where no answers of so many groups have such a sum."""
    if not ((total >= -_ROUNDING) & (total <= most + _ROUNDING)).all():
        raise FederationError(
            "no sum of rewards: it is one that no answers of these groups can have, so a group has "
            "sent something else. What it sent is masked, and nobody sees which group it was"
        )


def checked_shares(content: RecordDict, sent: Arrays, question: Ints) -> Arrays:
    """A group's answer in the clear; raises ValueError saying what is wrong with it.

    Args:
        content: untrusted content of the reply.
        sent: what was asked.
        question: [n] of each option.
    """
    if set(content) != {ARRAYS}:
        raise ValueError("it is no answer: one record of arrays")
    arrays = record_to_arrays(record_of(content, ARRAYS, ArrayRecord))
    reward_form(sent, secure=False).check_arrays(arrays)
    answered, shares = arrays[ANSWERED], arrays[SHARES]
    if not np.isin(answered, (0, 1)).all():
        raise ValueError("it has answered a part of an option")
    if shares[answered == 0].any():
        raise ValueError("it has shares of options that it has not answered")
    if len({*zip(question.tolist(), answered.tolist(), strict=True)}) > len({*question.tolist()}):
        raise ValueError("it has answered some options of a question and not the others")
    largest = np.bincount(question, shares).max(initial=0.0)
    check("query.reward", "shares of a question", float(largest))
    return arrays
