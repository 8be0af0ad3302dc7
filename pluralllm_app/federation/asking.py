"""The messages of a round."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType, RecordDict

from pluralllm_app.federation.messages import (
    ARRAYS,
    CONFIG,
    arrays_to_record,
    request_to_record,
)
from pluralllm_app.federation.roster import Roster
from pluralllm_app.federation.secure_group import SECURE_SCORES, SECURE_SUM
from pluralllm_app.federation.secure_scores import ScoreSums
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.federation.state import RunState
from pluralllm_app.learning.base import Request


def round_messages(
    roster: Roster,
    state: RunState,
    options: Mapping[str, float],
    trained: Sequence[str],
    scored: Sequence[str],
    sums: SecureSums | None,
    scores: ScoreSums | None,
) -> list[Message]:
    """A message to each group that trains or is to score the state, in that order.

    Args:
        roster: of the run.
        state: that goes to all of them.
        options: of the learner.
        trained: groups that train; of these, those of `scored` score as well.
        scored: groups that score.
        sums: with a sum that was begun, where contributions are masked.
        scores: with sums that were begun, where scores are masked.
    """
    arrays = arrays_to_record(state.learner.sent)
    messages = []
    for name in trained:
        request = Request(
            round=state.round + 1,
            evaluate=name in scored,
            experiment=state.experiment,
            counted=state.counted.get(name, 0),
            options=options,
        )
        content = RecordDict({ARRAYS: arrays, CONFIG: request_to_record(request)})
        if sums:
            content[SECURE_SUM] = sums.record(name)
        if scores and request.evaluate:
            content[SECURE_SCORES] = scores.record(name)
        node = roster.nodes[name]
        messages.append(Message(content, node, MessageType.TRAIN, group_id=str(request.round)))
    for name in scored:
        if name in trained:
            continue
        content = RecordDict({ARRAYS: arrays})
        if scores:
            content[SECURE_SCORES] = scores.record(name)
        node = roster.nodes[name]
        messages.append(Message(content, node, MessageType.EVALUATE, group_id=str(state.round)))
    return messages
