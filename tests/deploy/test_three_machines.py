"""docs/three-machines.sh: from groups' own files to a report; nothing is shared but questions."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pluralllm_app.survey.site import Site
from tests.conftest import ROOT
from tests.support.answers import Answers
from tests.support.deployment import free_port
from tests.support.watched import Watch, can_trace

NAMES = {"north": "North", "east": "East"}
MACHINES = ("server", *NAMES)
SEPARATION = re.compile(r"Machines have their own: files (.*), user (.*), network (.*)")


@dataclass
class Machines:
    """What the script has left."""

    place: Path
    watch: Watch | None
    own: dict[str, bool]  # files, user and network: whether it says that machines have their own


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # users of machines may enter it
        place = folder / "machines"
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        watch = Watch(folder, place) if can_trace() else None
        if watch:
            paths.insert(0, str(watch.programs))
        changed = {"PATH": os.pathsep.join(paths), "PORT": str(free_port()), "COLUMNS": "120"}
        with subprocess.Popen(
            ["sh", ROOT / "docs/three-machines.sh", place],
            env=os.environ | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as script:
            output, errors = script.communicate()
        assert script.returncode == 0, (output, errors)
        assert "Run directory:" in output
        assert not list(Path("/run/netns").glob(f"pluralllm-{script.pid}-*"))
        said = SEPARATION.search(output)
        assert said is not None
        assert all(own == "yes" or own.startswith("no (needs root") for own in said.groups())
        kinds = zip(("files", "user", "network"), said.groups(), strict=True)
        yield Machines(place, watch, {kind: own == "yes" for kind, own in kinds})


@pytest.fixture
def watch(machines: Machines) -> Watch:
    if machines.watch is None:
        pytest.skip("needs strace, and leave to trace")
    return machines.watch


@pytest.mark.story
def test_the_run_ends_with_a_report(machines: Machines) -> None:
    assert (machines.place / "server/federation").is_dir()
    assert "North" in (machines.place / "server/report.html").read_text("utf-8")


@pytest.mark.story
def test_machines_are_kept_apart_where_the_system_lets_us(machines: Machines) -> None:
    cable = "unshare --net sh -c 'ip link add switch type bridge && ip link add cable type veth'"
    for kind, command in (("files", "unshare --mount true"), ("network", cable)):
        tried = subprocess.run(command, shell=True, stderr=subprocess.DEVNULL)
        assert machines.own[kind] == (os.geteuid() == 0 and tried.returncode == 0)


@pytest.mark.story
def test_machines_have_of_their_own_what_the_script_says(machines: Machines, watch: Watch) -> None:
    seen = [watch.seen(machine) for machine in MACHINES]
    users = {user for own in seen for user in own.users}
    networks = {network for own in seen for network in own.networks}
    folders = [(machines.place / machine).stat() for machine in MACHINES]
    owners = {str(folder.st_uid) for folder in folders}
    assert len(owners) == (3 if machines.own["user"] else 1)
    assert len(networks) == (3 if machines.own["network"] else 1)
    if machines.own["user"]:  # else there is one more, that tried to run the app
        assert users == owners
    if machines.own["files"] or machines.own["user"]:
        assert [own.read for own in seen] == [set()] * 3
    assert [folder.st_mode & 0o777 for folder in folders] == [0o700] * 3


@pytest.mark.story
@pytest.mark.parametrize("machine", MACHINES)
def test_no_process_opens_a_file_of_another_machine(
    machine: str, machines: Machines, watch: Watch
) -> None:
    opened = {
        str(file.relative_to(machines.place / machine))
        for file in watch.seen(machine).opened
        if file.is_relative_to(machines.place / machine)
    }
    if machine == "server":
        server = "federation/server"
        assert {f"{server}/server.key", f"{server}/state/superlink.db"} <= opened
    else:
        group = f"groups/{machine}.parquet"
        assert {"answers.csv", f"site/{group}", f"node/site/{group}", "node/node.key"} <= opened
    assert watch.of_others(machine) == []


def test_a_directory_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", "input()", tmp_path / "server/federation"],
        stdin=subprocess.PIPE,
    ) as used:
        second = subprocess.run(
            ["sh", ROOT / "docs/three-machines.sh", tmp_path], stderr=subprocess.PIPE, text=True
        )
        assert second.returncode != 0
        assert "server" in second.stderr.splitlines()[0]
        assert used.stdin is not None
        used.stdin.write(b"\n")  # it goes on, and ends by itself
    assert used.returncode == 0


@pytest.mark.skipif(not can_trace(), reason="needs strace, and leave to trace")
def test_a_process_that_opens_a_file_of_another_machine_is_found(tmp_path: Path) -> None:
    place = tmp_path / "machines"
    for machine in MACHINES:
        (place / machine).mkdir(parents=True)
        (place / machine / "answers.csv").write_text("Yes", "utf-8")
    watch = Watch(tmp_path, place)
    program = "open('answers.csv'); open('../east/answers.csv')"
    child = f"import subprocess; subprocess.run(['python3', '-c', {program!r}])"
    subprocess.run(
        [watch.programs / "python3", "-c", child],
        cwd=place / "north",
        env={"HOME": str(place / "north"), "PATH": f"{watch.programs}:{os.environ['PATH']}"},
        check=True,
    )
    assert watch.seen("north").read == {
        str(place / own / "answers.csv") for own in ("server", "east")
    }
    assert watch.of_others("north") == [place / "east/answers.csv"]
    assert watch.of_others("east") == []


@pytest.mark.story
@pytest.mark.parametrize("group", NAMES)
def test_no_other_machine_holds_answers_of_a_group(machines: Machines, group: str) -> None:
    place = machines.place
    survey = Site.open(place / group / "node/site", NAMES[group]).survey
    answers = Answers(survey)
    first = survey.preferences(NAMES[group]).shares[:3]
    assert answers.found_in(b"..." + first.tobytes(), questions=True, weights=True) != []
    others = [
        file
        for machine in MACHINES
        if machine != group
        for file in (place / machine).rglob("*")
        if file.is_file() and file.name != "report.html"  # its many numbers are some by chance
    ]
    assert len(others) > 30
    for file in others:
        weights = file.suffix == ".safetensors" or ".db" in file.name
        assert answers.found_in(file.read_bytes(), questions=True, weights=weights) == [], file


@pytest.mark.story
def test_each_key_is_on_its_own_machine(machines: Machines) -> None:
    place = machines.place
    keys = {str(file.relative_to(place)) for file in place.rglob("*.key")}
    server = {f"server/federation/{name}" for name in ("ca/ca.key", "server/server.key")}
    own = {f"{group}/node/{name}.key" for group in NAMES for name in ("node", "draws")}
    assert keys == server | own
