"""How a policy is written and shown: the file that a new node gets, and a table of what holds."""

import json
from collections.abc import Iterator
from pathlib import Path

from pluralllm_app.federation.ledger import Ledger
from pluralllm_app.federation.policy import NO_LIMIT, Policy
from pluralllm_app.privacy.accounting import epsilon_of

MEANINGS = {
    "draws": "run-seed: as in a simulation, for audits. The server then knows the draws",
    "learners": "what runs may learn; refined is gpo with prior = factors",
    "secure-sum": "runs that must have privacy = secure-sum: none, factors (and refined), all",
    "single-scores": "stay: the scores of this group alone do not leave",
    "rewards": "of a language model, from its answers: refuse, secure-sum (groups' mean), clear",
    "least-local-steps": "of local-steps in a run",
    "least-tasks-per-step": "of tasks-per-step",
    "least-train-groups": "of min-train-groups in a run, and of groups in a secure sum",
    "least-cohort-share": "of the train groups whose keys the node knows, in a secure sum",
    "most-rounds": "in a run; no limit where it is not set, as with those below",
    "most-messages": "in a run",
    "most-rounds-in-total": "over all runs, see ledger.json",
    "most-messages-in-total": "over all runs",
    "most-epsilon": "of one respondent, over all runs, which must have noise; see ledger.json",
    "delta": "at which most-epsilon holds",
}
_EXAMPLES = {
    "most-rounds": 200,
    "most-messages": 2000,
    "most-rounds-in-total": 1000,
    "most-messages-in-total": 10_000,
    "most-epsilon": 4.0,
}
_HEAD = """\
# What this node lets a run ask of it; no server can change it. It is read for every message, and
# with a mistake in it the node does not start. `pluralllm deploy policy` shows what holds.
# To set a line, take the "# " before it away. Except for most-..., lines show what holds without.
"""
_PEERS = """\
#
# [peers]  # the keys of all other groups; without them, what the server first says is believed
# North = "SHA256:..."
"""


def template() -> str:
    """The content of the file that a new node gets, which sets nothing."""
    set_to = {
        key: f"{key} = {json.dumps(_EXAMPLES.get(key, Policy().of_key(key)))}" for key in MEANINGS
    }
    width = max(map(len, set_to.values()))
    lines = [f"# {set_to[key]:{width}}  # {meaning}\n" for key, meaning in MEANINGS.items()]
    return _HEAD + "".join(lines) + _PEERS


def shown(node: Path) -> Iterator[tuple[str, str, str]]:
    """What holds at a node: each rule, its value, and what it means.

    Raises:
        UserError: policy.toml or ledger.json is damaged.
    """
    policy, ledger = Policy.read(node), Ledger.read(node)
    for key, meaning in MEANINGS.items():
        yield key, _shown_value(policy, key, ledger), meaning
    pins = f"{len(policy.peers)} pinned" if policy.peers else "as the server first names them"
    yield "peers", pins, "the other groups' keys, see `pluralllm deploy peers`"


def _shown_value(policy: Policy, key: str, ledger: Ledger) -> str:
    value = policy.of_key(key)
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    if value == NO_LIMIT:
        text = "no limit"
    if key == "most-epsilon" and ledger.noise:
        text += f" ({epsilon_of(ledger.rho, policy.delta):.3g} so far)"
    if key.endswith("-in-total"):
        total = ledger.total
        text += f" ({total.rounds if 'rounds' in key else total.messages} so far)"
    return text
