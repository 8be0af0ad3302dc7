"""What is summed securely without learning, as how many groups answered each row of factors."""

import time

from flwr.app import ArrayRecord, Message, RecordDict

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.exchange import exchange
from pluralllm_app.federation.heard import Heard, causes, read_reply
from pluralllm_app.federation.meaning import counts_request
from pluralllm_app.federation.messages import (
    ARRAYS,
    arrays_to_record,
    record_of,
    record_to_arrays,
)
from pluralllm_app.federation.secure_group import SECURE_SUM
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.federation.state import RunState
from pluralllm_app.learning.base import Contribution, Form, Learner, Request, State
from pluralllm_app.predictors.base import Arrays

COUNTS = "query.secure_counts"


def counted(sums: SecureSums, learner: Learner, run: RunState) -> State:
    """The state of a learner once what it needs to know before the first round is summed.

    Args:
        sums: over the train groups.
        learner: whose groups count.
        run: the state of the run.

    Raises:
        FederationError: see `SecureSums.begin` and `SecureSums.total`.
    """
    state = run.learner
    form = Form(learner.count_forms(state.sent), {})
    if not form.arrays:
        return state
    left = sums.federation.rounds + 1
    try:
        totals = summed(sums, COUNTS, form, state.sent, counts_request(run.experiment), left)
    except FederationError as error:
        raise FederationError(f"before round 1: {error}") from error
    return learner.counted(state, totals)


def summed(
    sums: SecureSums, query: str, form: Form, sent: Arrays, request: Request, left: int
) -> Arrays:
    """A sum in an exchange of its own, without local steps.

    Args:
        sums: over the train groups.
        query: kind of the messages.
        form: of what groups answer, before it is masked.
        sent: what they are sent.
        request: what stands for a request.
        left: sums that are to come in this run, this one among them.

    Raises:
        FederationError: see `SecureSums.begin` and `SecureSums.total`.
    """
    roster, timeout = sums.roster, sums.federation.round_timeout
    heard = Heard(time.perf_counter())
    cohort = sums.begin(form, sent, request, left, heard)
    arrays = arrays_to_record(sent)
    messages = [
        Message(
            RecordDict({ARRAYS: arrays, SECURE_SUM: sums.record(name)}),
            *(roster.nodes[name], query),
            group_id=str(request.round),
        )
        for name in cohort
    ]

    def take(name: str, content: RecordDict) -> Contribution:
        found = record_to_arrays(record_of(content, ARRAYS, ArrayRecord))
        sums.form.check_arrays(found)
        sums.add(name, found)
        return Contribution({}, 1.0, {})

    for node, reply in exchange(sums.grid, messages, timeout):
        name = roster.names[node]
        read_reply("train", name, heard.reply_of(name, reply), take, heard.lost)
    try:
        total = sums.total(heard)
    except FederationError as error:
        raise FederationError(f"{error}: {causes(heard.lost)}") from error
    for failure in heard.lost:
        sums.progress(f"{query}: {failure.group} failed: {failure.reason}")
    return total.arrays
