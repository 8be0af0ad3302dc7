"""What a node of a deployment has beside its key, and the secret of its draws in particular.

    draws.key     64 hexadecimal digits that no other machine knows, made at the first start
    policy.toml   what the owner of the node lets a run ask of it, see `policy`
    ledger.json   what was asked so far, see `ledger`
    peers.json    the other groups' keys, see `peers`

Whoever knows which questions a step of training used can compute the group's answers to them from
an update, so no other machine may know the draws. They follow from the secret and from all that a
result depends on: what the server sent, and the settings. A round that is repeated gives the same
bits, and a server that asks again for something else learns of other draws.

Messages name files without their place: a node's errors reach the server.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.private_files import check_private
from pluralllm_app.errors import UserError
from pluralllm_app.federation.ledger import Ledger
from pluralllm_app.federation.peers import Peers
from pluralllm_app.federation.policy import Policy
from pluralllm_app.learning.base import Request
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.settings import NO_RESULT, Scalar

SECRET = "draws.key"
_BYTES = 32


def prepare_node(node: Path) -> Policy:
    """Check the files in the directory of a node, and make its secret if it has none.

    Raises:
        UserError: one of them is damaged, or others may read the secret, or it cannot be written.
    """
    policy = Policy.read(node)
    Ledger.read(node)
    Peers.read(node)
    file = node / SECRET
    if file.exists():
        check_private(file)
        _read_secret(node)
        return policy
    try:
        write_atomically(file, f"{secrets.token_hex(_BYTES)}\n".encode(), secret=True)
    except OSError as error:
        raise UserError(
            f"cannot write {SECRET}, the secret of this node's draws: {error.strerror}; let the "
            "node write the directory of its key"
        ) from error
    return policy


def draws_of(
    node: Path, config: Mapping[str, Scalar], sent: Arrays, request: Request
) -> int | None:
    """What keys a node's draws in a round; None: the run's seed does.

    Args:
        node: directory of the node.
        config: of the run.
        sent: what the server sent.
        request: what it asks.

    Raises:
        UserError: see `Policy.read`; or there is no secret, or it is damaged.
    """
    if Policy.read(node).draws == "run-seed":
        return None
    asked: dict[str, Any] = {"round": request.round, "options": dict(request.options)}
    if config["client-optimizer-state"] == "keep" or config["prior"] != "none":
        # What the group keeps from earlier rounds of the run is part of the result.
        asked |= {"experiment": request.experiment, "counted": request.counted}
    shaping = {key: value for key, value in config.items() if key not in NO_RESULT}
    known = hmac.new(_read_secret(node), digestmod=hashlib.sha256)
    known.update(json.dumps([shaping, asked], sort_keys=True).encode())
    for name in sorted(sent):
        array = sent[name]
        known.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        known.update(array.tobytes())
    return int.from_bytes(known.digest(), "big")


def _read_secret(node: Path) -> bytes:
    file = node / SECRET
    try:
        text = file.read_text("utf-8", "replace").strip()
    except OSError as error:
        raise UserError(
            f"cannot read {SECRET}, the secret of this node's draws: {error.strerror}; start the "
            "node with its start.sh, which makes it"
        ) from error
    if not re.fullmatch(f"[0-9a-f]{{{2 * _BYTES}}}", text):
        raise UserError(
            f"{SECRET} is damaged: restore it from a copy, or remove it. The node then makes "
            "another at its start, and the round in which a run is cut off is learned anew"
        )
    return bytes.fromhex(text)
