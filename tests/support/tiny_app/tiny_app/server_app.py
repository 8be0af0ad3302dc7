"""A ServerApp that writes what it saw to a file, then completes, raises or waits."""

import json
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Raise at once, or query every node and then end or wait, as the run config says."""
    print("a line of the ServerApp")
    if context.run_config["mode"] == "raise":
        raise ValueError("the tiny app was told to raise")
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)
    messages = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    clients = [dict(reply.content["seen"]) for reply in grid.send_and_receive(messages)]
    seen = Path(str(context.run_config["seen"]))
    part = seen.with_suffix(".part")
    part.write_text(json.dumps({"config": dict(context.run_config), "clients": clients}))
    part.rename(seen)
    if context.run_config["mode"] == "wait":
        time.sleep(600)
