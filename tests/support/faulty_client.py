"""The app's ClientApp on a node that misbehaves, round by round, as a file on the node says.

`faults.json` in the node's directory names the fault of each round, see `FAULTS` and `train`. That
directory holds the node's site; in a simulation it is `node-PARTITION` beside the survey. The node
leaves `fault-ROUND` there when one begins. Without the file, or in other rounds, it does what
the app does.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pluralllm_app import client_app
from pluralllm_app.federation.messages import (
    ARRAYS,
    CONFIG,
    EVALUATION,
    METRICS,
    PACKED,
    QUESTIONS,
    SCORES,
    arrays_to_record,
    record_to_arrays,
)
from pluralllm_app.federation.partition import locate
from pluralllm_app.federation.quiet_errors import without_content
from pluralllm_app.learning.gpo import WEIGHTS
from pluralllm_app.settings import Settings

app = ClientApp()
app.query()(client_app.describe)
app.evaluate()(client_app.evaluate)
app.query("secure_sum")(client_app.secure_sum)
app.query("secure_counts")(client_app.secure_counts)
app.query("reward")(client_app.reward)


@app.train()
@without_content
def train(message: Message, context: Context) -> Message:
    """Train as the app does, and spoil the reply; or do not reply."""
    here = directory(context)
    number = message.content.config_records[CONFIG]["round"]
    plan = here / "faults.json"
    fault = json.loads(plan.read_text()).get(str(number)) if plan.exists() else None
    begun = here / f"fault-{number!r}"
    if fault:
        begun.touch()
    if fault == "wait":  # until the test deletes the file
        while begun.exists():
            time.sleep(0.1)
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "raise":
        settings = Settings.from_config(context.run_config)
        own = locate(context, settings)
        shares = own.preferences(settings).shares
        raise RuntimeError(f"{own.survey.questions().texts} {shares.tolist()}")
    reply = client_app.train(message, context)
    if fault in FAULTS:
        FAULTS[fault](reply.content)
    return reply


def directory(context: Context) -> Path:
    """The directory of the node."""
    node = context.node_config
    if "site" in node:
        return Path(str(node["site"])).parent
    survey = Path(str(context.run_config["survey"]))
    return survey.with_name(f"node-{node['partition-id']}")


def _weights(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        weights = record_to_arrays(content.array_records[ARRAYS])[WEIGHTS]
        content[ARRAYS] = arrays_to_record({WEIGHTS: change(weights)})

    return spoil


def _with_a(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: np.append(weights[:-1], np.float32(value))


def _other_records(content: RecordDict) -> None:
    content.clear()
    content["anything"] = ConfigRecord({"text": "garbage"})


def _other_bytes(content: RecordDict) -> None:
    content.array_records[ARRAYS][PACKED] = Array("uint8", (7,), "safetensors", b"garbage")


def _other_count(content: RecordDict) -> None:
    content.metric_records[METRICS][QUESTIONS] = 10**6


def _fewer_scores(content: RecordDict) -> None:
    scores = content.metric_records[EVALUATION][SCORES]
    assert isinstance(scores, list)
    scores.pop()


FAULTS: dict[str, Callable[[RecordDict], None]] = {
    "other records": _other_records,
    "other bytes": _other_bytes,
    "NaN": _weights(_with_a(np.nan)),
    "infinite": _weights(_with_a(np.inf)),
    "too short": _weights(lambda weights: weights[:-1]),
    "other count": _other_count,
    "fewer scores": _fewer_scores,
}
