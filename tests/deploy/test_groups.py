"""Groups that join and leave a deployment."""

import json
import shutil
from pathlib import Path

import pytest

from pluralllm_app.deploy.groups import read_groups, read_roles, remove_group
from pluralllm_app.errors import UserError
from pluralllm_app.survey.prepared import PreparedSurvey
from tests.support.control_api import deploy
from tests.support.deployment import deployed


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"a": 1}', '{"../../x": "Alder"}', '{"a": "Alder", "b": "Alder"}'],
)
def test_damaged_groups_are_refused(made: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/groups.json").write_text(content)
    with pytest.raises(UserError, match=r"groups\.json is damaged"):
        read_groups(tmp_path)


def test_roles_are_registered_by_the_commands(tmp_path: Path, tiny_survey: PreparedSurvey) -> None:
    path = deployed(tmp_path / "there", tiny_survey, ["Alder", "Birch", "Dogwood"])
    assert read_roles(path) == {"alder": "train", "birch": "train", "dogwood": "evaluation"}
    changed = deploy("roles", path, "--evaluation-groups", "Alder")
    assert "Alder: never trains" in changed.output
    assert "Dogwood: trains" in changed.output
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
