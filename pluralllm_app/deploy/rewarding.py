"""`pluralllm deploy reward`: score completions by what the groups of a deployment truly answered.

Completions are read here. The nodes are asked for numbers of options, and what they answer is put
together here again: a run of the app carries both, see `federation.reward_server`.
"""

import shutil
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from pluralllm_app.core.wording import many
from pluralllm_app.deploy.control import connect
from pluralllm_app.deploy.groups import read_registered
from pluralllm_app.deploy.layout import QUESTIONNAIRE
from pluralllm_app.deploy.submit import Submitted, missing_nodes
from pluralllm_app.engines.run_config import read_run_config
from pluralllm_app.engines.run_directory import make_run_directory
from pluralllm_app.errors import AnswersError, SettingsError, UserError
from pluralllm_app.federation.registration import check_roles
from pluralllm_app.federation.reward_server import ANSWERS, Asked, Shares
from pluralllm_app.rewards.aggregation import RULES
from pluralllm_app.rewards.federated import Choices, Rewarded, read_rollouts, rewarded
from pluralllm_app.rewards.history import History
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import parse_overrides
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.embedding import Texts
from pluralllm_app.use.survey import Survey

OWN_SETTINGS = (
    *("privacy", "min-contributors", "noise", "epsilon", "delta"),
    *("start-timeout", "round-timeout"),
)
POLL_SECONDS = 0.2


def reward(
    path: Path,
    file: Path,
    rule: str,
    overrides: list[str],
    history: Path | None,
    console: Console,
) -> Rewarded:
    """Score the completions of a file by the answers of the train groups of a deployment.

    Args:
        path: directory of the deployment.
        file: of rollouts, see `read_rollouts`.
        rule: one of `RULES`.
        overrides: single settings, of `OWN_SETTINGS`.
        history: of adaptive-alpha, which is gone on with, or made where there is none.
        console: where it is said what goes on.

    Raises:
        UserError: anything the user can mend: the rollouts, the rule, settings, the SuperLink, a
            node that is not there or refuses.
    """
    members = read_registered(path)
    check_roles(members, path)
    groups = {slug: member.name for slug, member in members.items() if member.role == "train"}
    run_config = _run_config(path, rule, overrides, len(groups))
    calls = _history(rule, history, sorted(groups.values()))
    choices = _choices(path, file)
    with connect(path) as control:
        if missing := missing_nodes(control, groups, list(groups.values())):
            raise UserError("\n".join(["all groups that train have to be there:", *missing]))
    said = "one by one" if run_config["privacy"] == "none" else "in a secure sum"
    console.print(
        f"Asking {many(len(groups), 'group')} {said} for {many(len(choices.asked), 'option')}",
        highlight=False,
    )
    shares = _ask(path, run_config, choices, console)
    combining = RULES[rule]()
    past = calls.latest(combining.remembered) if calls else np.zeros((0, len(shares.groups)))
    fewest = Settings.from_config(run_config).federation.min_contributors
    found = rewarded(choices, shares, fewest, combining, past)
    if calls and history:
        calls.add(found.means())
        calls.save(history)
    return found


def _run_config(path: Path, rule: str, overrides: list[str], groups: int) -> dict[str, Scalar]:
    if rule not in RULES:
        raise SettingsError(f"rule {rule!r} does not exist: known are {', '.join(RULES)}")
    for key in parse_overrides(overrides):
        if key not in OWN_SETTINGS:
            raise SettingsError(
                f"{key} plays no part in rewards, whose settings are {', '.join(OWN_SETTINGS)}"
            )
    config = read_run_config(None, None, ["privacy=secure-sum", *overrides], None)
    if config["survey"]:
        raise SettingsError("each node has its own site: leave PLURALLLM_SURVEY empty")
    if config["privacy"] != "none" and rule != "mean":
        raise SettingsError(
            f"the rule {rule} needs each group's own rewards, and by secure sums the server sees "
            "their mean alone: take the rule mean; or set privacy=none, where the nodes' policies "
            'have rewards = "clear"'
        )
    config |= {
        "purpose": "rewards",
        "out": "",  # a directory of its own, which is removed
        "weighting": "uniform",
        "rounds": 1,
        "questionnaire": str(path.resolve() / QUESTIONNAIRE),
        "expected-nodes": groups,
        # Without any loss: else two calls could differ by one group, whose answers that tells.
        "secure-threshold": 0 if config["privacy"] == "none" else groups,
    }
    Settings.from_config(config)
    return config


def _history(rule: str, file: Path | None, groups: list[str]) -> History | None:
    if (rule == "adaptive-alpha") != (file is not None):
        raise AnswersError(
            "adaptive-alpha weighs groups by their rewards so far, which no other rule does: give "
            "--history FILE with it, which is made where there is none, and only with it"
        )
    if file is None:
        return None
    found = History(groups)
    if file.exists():
        found.restore(file)
    return found


def _choices(path: Path, file: Path) -> Choices:
    rows = read_rollouts(file)
    questionnaire = PreparedSurvey.open(path / QUESTIONNAIRE).questionnaire()
    texts = Texts(questionnaire.about, questionnaire.embeddings.shape[1], None)
    survey = Survey(questionnaire, texts, None)
    choices = Choices.of(survey, **rows)
    if not len(choices.asked):
        raise AnswersError(f"{file}: there is nothing to ask groups for: {choices.counts}")
    return choices


def _ask(path: Path, run_config: dict[str, Scalar], choices: Choices, console: Console) -> Shares:
    """Ask the groups by a run of the app, which leaves nothing else on the server."""
    out = make_run_directory(run_config, runs=path / "server" / "rewards")
    run_config = run_config | {"out": str(out)}
    try:
        Asked(choices.asked.tolist()).write(out)
        with connect(path) as control, console.status("asking the nodes"):
            run = Submitted(control, run_config)
            run.start()
            while (outcome := run.poll()) is None and not (out / ANSWERS).exists():
                time.sleep(POLL_SECONDS)
        if outcome:
            outcome.check()
        return Shares.read(out)
    finally:
        shutil.rmtree(out)
