"""A ClientApp that tells what its process looks like."""

import os

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the process, its threads and its partition."""
    seen = ConfigRecord(
        {
            "pid": os.getpid(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "partition": int(context.node_config["partition-id"]),
        }
    )
    return Message(RecordDict({"seen": seen}), reply_to=message)
