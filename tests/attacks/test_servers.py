"""What a server tries against its own nodes, on real processes."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.code import installed_hash
from pluralllm_app.core.locks import held
from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.engines.app_files import own_files
from pluralllm_app.federation.audit_log import AUDIT_LOG
from pluralllm_app.federation.flower_apps import OwnApp
from pluralllm_app.federation.ledger import Ledger
from pluralllm_app.federation.policy import POLICY
from pluralllm_app.federation.registration import fingerprint
from pluralllm_app.settings import Scalar
from tests.attacks.conftest import Row
from tests.conftest import TINY, make_survey
from tests.support.bundles import hostile
from tests.support.deployment import Deployment, command
from tests.support.waiting import PATIENCE, wait_until

GROUPS = ("Alder", "Birch", "Cedar", "Dogwood")
CONFIG: dict[str, Scalar] = TINY | {
    "rounds": 1,
    "start-timeout": PATIENCE,
    "round-timeout": PATIENCE,
}
KINDS = (  # tests/federation/test_own_code.py has more
    "changed file",
    "added file",
    "entry point",
    "twice",
    "symlink",
    "path upwards",
    "bomb",
    "bomb that lies about its length",
)
SECURE: dict[str, Scalar] = CONFIG | {
    "privacy": "secure-sum",
    "train-groups-per-round": 0,
    "weighting": "uniform",
    "expected-nodes": 4,
}
SCRIPT = "python3 -m pluralllm_app.deploy.superlink"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """All nodes are online; the SuperLink is an attacker's."""
    survey = make_survey(
        tmp_path_factory.mktemp("survey") / "tiny", train=GROUPS[:3], evaluation=GROUPS[3:]
    )
    path = tmp_path_factory.mktemp("deployment") / "there"
    with Deployment(path, survey, GROUPS) as deployment:
        script = deployment.dir / "server" / "start.sh"
        text = script.read_text("utf-8")
        assert SCRIPT in text
        hostile_one = Path(__file__).parents[1] / "support" / "hostile_superlink.py"
        script.write_text(text.replace(SCRIPT, f"python3 {hostile_one}"), "utf-8")
        deployment.start_all()
        yield deployment


def run(deployment: Deployment, name: str, **settings: Scalar) -> int:
    """Submit a run to its end; returns the exit status."""
    changed = {key.replace("_", "-"): value for key, value in settings.items()}
    return deployment.deploy_run(name, CONFIG | changed).wait(PATIENCE)


def edited(deployment: Deployment, name: str, file: str) -> Path:
    """A copy of the installed app in which a file of the package is another one."""
    copy = deployment.path / name
    shutil.copytree(deployment.path / "app", copy, ignore=shutil.ignore_patterns("__pycache__"))
    changed = copy / "pluralllm_app" / file
    changed.write_bytes(b"# edited\n" + changed.read_bytes())
    return copy


@pytest.mark.attack
def test_no_node_runs_what_a_hostile_server_sends(
    deployment: Deployment, tmp_path: Path, row: Row
) -> None:
    """Four to a run; then the nodes take part in one with the true app."""
    marker = tmp_path / "marker"
    attacks = hostile(OwnApp.of(own_files()).bundle.content, marker)
    evil = deployment.dir / "evil"
    evil.mkdir()
    for number, first in enumerate(range(0, len(KINDS), len(GROUPS))):
        chosen = KINDS[first : first + len(GROUPS)]
        for place, kind in enumerate(chosen):
            (evil / f"{place}.fab").write_bytes(attacks[kind][0])
        name = f"hostile-{number}"
        assert run(deployment, name, min_train_groups=1) == 1, deployment.log(name)
        record = json.loads((deployment.run_dir(name) / "run.json").read_text())
        assert record["status"] == "failed"
        told = list(record["refused"].values())
        assert len(told) == len(chosen), told
        for kind in chosen:
            assert any(attacks[kind][1] in line for line in told), (kind, told)
        shown = deployment.log(name).replace("\n", " ")
        status = command("status", deployment.dir).output
        for group, line in record["refused"].items():
            assert re.search(f"of group [^:]*{group!r}[^:]* cannot take part: the server's", shown)
            assert f"{group}: refused in the last run: its node {line}" in status
    assert not marker.exists()
    assert not list(deployment.dir.rglob("evil.py"))
    assert run(deployment, "true", min_train_groups=1) == 0, deployment.log("true")
    record = json.loads((deployment.run_dir("true") / "run.json").read_text())
    assert record["versions"]["code"] == installed_hash()
    assert "refused" not in record
    for group in GROUPS:
        assert f"its own code, {installed_hash()}" in deployment.log(deployment.slugs[group])
    for kind in KINDS:
        row(
            f"a server sends nodes other code: {kind}",
            before="run by every node",
            after="refused by name, nothing of it run; the next run completes",
        )


@pytest.mark.attack
def test_an_app_that_was_changed_on_the_server_is_refused_by_all(
    deployment: Deployment, row: Row
) -> None:
    """As `flwr run` submits it: a checkout in which a file was edited."""
    checkout = edited(deployment, "edited", "client_app.py")
    out = deployment.run_dir("edited")
    settings = CONFIG | {"out": str(out), "expected-nodes": 4, "min-train-groups": 1}
    deployment.submit(settings, "edited", checkout).wait(PATIENCE)
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "failed"
    assert set(record["refused"]) == set(GROUPS)
    assert "pluralllm_app/client_app.py differs. A node runs its own code" in record["error"]
    assert record["versions"]["code"] not in (None, installed_hash())
    row(
        "an edited app is submitted with flwr run",
        before="run by every node",
        after="refused by all nodes, which name the file",
    )


@pytest.mark.attack
def test_noise_under_the_name_of_another_run_is_counted(deployment: Deployment, row: Row) -> None:
    """A run goes on from a copy of its beginning that asks for less noise.

    While the copy is made Birch cannot draw its noise, so that the sum of the round stays closed.
    """
    out, copy = deployment.run_dir("noised"), deployment.run_dir("copy")
    audit = deployment.node_dir("Alder") / AUDIT_LOG
    before = audit.read_text("utf-8").count('"train"')
    noise: dict[str, Scalar] = {"noise": "groups", "epsilon": 4.0, "update-norm": 0.5}
    memory = deployment.node_dir("Birch") / "site" / "memory"
    memory.mkdir(exist_ok=True)
    with held(memory / ".noised-updates.lock", "Birch draws noise"):
        process = deployment.deploy_run("noised", SECURE | noise)
        wait_until(
            lambda: audit.read_text("utf-8").count('"train"') > before or process.poll() is not None
        )
        half_written = shutil.ignore_patterns(".*")  # files that are renamed once they are whole
        shutil.copytree(out, copy, ignore=half_written)
    assert process.wait(PATIENCE) == 0, deployment.log("noised")
    record = json.loads((copy / "run.json").read_text("utf-8"))
    record["settings"]["epsilon"] = 100.0
    write_atomically(copy / "run.json", json.dumps(record).encode())
    command = ("pluralllm", "deploy", "run", deployment.dir, "--resume", copy)
    assert deployment.start("copy", command).wait(PATIENCE) == 0, deployment.log("copy")
    for group in GROUPS[:3]:
        noted = Ledger.read(deployment.node_dir(group)).noise.values()
        assert [draw.epsilon for draw in noted] == [4.0, 100.0]
    row(
        "a server asks for other noise under the name of the same run",
        before="drawn for nothing: the ledger had one draw",
        after="each draw is in the ledger with what it costs",
    )


@pytest.mark.attack
def test_a_server_that_leaves_pinned_groups_out(deployment: Deployment, row: Row) -> None:
    """Alder pins five train groups, its own among them; the server knows three."""
    policy = deployment.node_dir("Alder") / POLICY
    written = policy.read_text("utf-8")
    keys = {group: make_node_key("x").public for group in ("Elm", "Fir")}
    for group in GROUPS[1:]:
        keys[group] = (deployment.node_dir(group) / "node.key.pub").read_bytes()
    pins = {group: f'{group} = "{fingerprint(public)}"' for group, public in keys.items()}
    last = pins.pop("Dogwood")
    policy.write_text("\n".join(["[peers]", *pins.values(), "[evaluation-peers]", last]), "utf-8")
    try:
        assert deployment.deploy_run("left-out", SECURE).wait(PATIENCE) == 1
    finally:
        policy.write_text(written, "utf-8")
    told = deployment.log("left-out").replace("\n", " ")
    assert "the sum is over 3 of the 5 train groups that it pins" in told
    row(
        "a server leaves groups that a node pins out of a secure sum",
        before="summed over the other three",
        after="refused by the node, which says how many it pins; the run ends",
    )


@pytest.mark.story
def test_one_node_of_another_version_is_left_out_by_name(deployment: Deployment) -> None:
    """Version skew: the machine of one group has another version installed."""
    older = edited(deployment, "older", "scoring/metrics.py")
    deployment.end_node("Cedar", signal.SIGTERM)  # a killed one would count as online for a minute
    cedar = deployment.node_dir("Cedar") / "start.sh"
    deployment.start("older", [cedar], {"PYTHONPATH": str(older)})
    wait_until(lambda: "SuperNode ID" in deployment.log("older"))
    deployment.wait_online(4)
    assert run(deployment, "skew", min_train_groups=1, expected_nodes=3) == 0
    record = json.loads((deployment.run_dir("skew") / "run.json").read_text())
    assert list(record["refused"]) == ["Cedar"]
    why = record["refused"]["Cedar"]
    assert "pluralllm_app/scoring/metrics.py differs" in why
    assert "`pluralllm --version` prints the same there" in why
    assert why in command("status", deployment.dir).output
    assert [entry["group"] for entry in record["roster"]] == ["Alder", "Birch", "Dogwood"]
