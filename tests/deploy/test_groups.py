"""Groups that join and leave a deployment."""

import json
import re
import shutil
import stat
from pathlib import Path

import pytest

from pluralllm_app.core.locks import held
from pluralllm_app.deploy.creation import initialise
from pluralllm_app.deploy.groups import add_group, read_groups, read_roles, remove_group
from pluralllm_app.errors import UserError
from tests.deploy.conftest import SERVERS
from tests.support.control_api import deploy


def test_groups_are_called_as_surveys_call_them(tmp_path: Path) -> None:
    deployment = initialise(tmp_path / "there", SERVERS, [" North ", "E\u0301lan"], 9443)
    expected = {"north": "North", "elan": "\u00c9lan"}
    assert deployment.groups == read_groups(deployment.path) == expected


def test_a_group_is_added_as_if_it_had_been_there(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    shutil.rmtree(path / "nodes")  # they are on their machines
    slug, key = add_group(path, " \u00c9lan ")
    assert (slug, read_groups(path)[slug]) == ("elan", "\u00c9lan")
    assert list(read_groups(path)) == [*read_groups(made), "elan"]
    added = path / "nodes" / "elan"
    for file in (made / "nodes" / "alder").iterdir():
        own = added / file.name
        assert stat.S_IMODE(own.stat().st_mode) == stat.S_IMODE(file.stat().st_mode)
    assert stat.S_IMODE(added.stat().st_mode) == 0o700
    same = {"alder": "elan", "Alder": r"\U000000c9lan"}
    for name in ("ca.crt", "start.sh", "pluralllm-supernode.service"):
        text = (made / "nodes/alder" / name).read_text()
        assert re.sub("[Aa]lder", lambda own: same[own[0]], text) == (added / name).read_text()
    assert (path / "server/nodes/elan.pub").read_bytes() == key.public
    assert (added / "node.key").read_bytes() == key.private


def test_a_group_is_not_added_twice(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    before = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=r"group 'Alder' is in .* `pluralllm deploy remove` first"):
        add_group(path, "Alder ")
    with pytest.raises(UserError, match="has no name"):
        add_group(path, " ")
    remove_group(path, "alder")
    with pytest.raises(UserError, match=r"nodes/alder belongs to an earlier node: move it away"):
        add_group(path, "Alder")
    expected = {*before, path / "server/.lock"} - {path / "server/nodes/alder.pub"}
    assert {*path.rglob("*")} == expected
    (path / "server/ca.crt").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read the certificate .*ca\.crt"):
        add_group(path, "Cedar")
    assert not (path / "nodes/cedar").exists()
    with held(path / "server/.lock", "here"):
        for change in (lambda: add_group(path, "Cedar"), lambda: remove_group(path, "birch")):
            with pytest.raises(UserError, match="another command changes the groups"):
                change()
    (path / "flwr-home/config.toml").write_text("[superlink]")
    with pytest.raises(UserError, match=r"config\.toml must have \[superlink\.pluralllm\]"):
        add_group(path, "Cedar")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"a": 1}', '{"../../x": "Alder"}', '{"a": "Alder", "b": "Alder"}'],
)
def test_damaged_groups_are_refused(made: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/groups.json").write_text(content)
    with pytest.raises(UserError, match=r"groups\.json is damaged"):
        read_groups(tmp_path)


def test_roles_are_registered_by_the_commands(tmp_path: Path) -> None:
    path = tmp_path / "there"
    made = [
        "init",
        path,
        "--server",
        "127.0.0.1",
        "--groups",
        "Alder",
        "--evaluation-groups",
        "Elm",
    ]
    assert deploy(*made).exit_code == 0
    assert read_roles(path) == {"alder": "train", "elm": "evaluation"}
    assert deploy("add", path, "Fir", "--never-trains").exit_code == 0
    assert deploy("add", path, "Yew").exit_code == 0
    assert read_roles(path) == {
        "alder": "train",
        "elm": "evaluation",
        "fir": "evaluation",
        "yew": "train",
    }
    changed = deploy("roles", path, "--evaluation-groups", "Alder")
    assert "Alder: never trains" in changed.output
    assert "Elm: trains" in changed.output
    assert read_roles(path)["alder"] == "evaluation"
    unknown = deploy("roles", path, "--evaluation-groups", "Adler")
    assert "did you mean 'Alder'" in str(unknown.exception)


def test_a_group_of_an_earlier_version_keeps_that_its_role_is_not_known(
    made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "there"
    shutil.copytree(made, path)
    file = path / "server/groups.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({slug: entry["name"] for slug, entry in plain.items()}))
    assert read_groups(path) == read_groups(made)
    remove_group(path, "birch")
    assert read_groups(path) == {
        slug: name for slug, name in read_groups(made).items() if slug != "birch"
    }
    with pytest.raises(UserError, match="run `pluralllm deploy roles"):
        read_roles(path)
