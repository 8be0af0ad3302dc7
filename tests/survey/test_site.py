"""Sites: one group's answers and no other's, and every change noticed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pluralllm_app.cli.main import app
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import Site, write_site
from tests.conftest import make_survey
from tests.support.command import CliRunner


@pytest.fixture
def site(tiny_survey: PreparedSurvey, tmp_path: Path) -> Path:
    return write_site(tiny_survey, "Élan 中/..", tmp_path / "site").survey.path


def test_a_site_has_the_groups_own_answers_alone(tiny_survey: PreparedSurvey, site: Path) -> None:
    opened = Site.open(site)
    assert opened.group == "Élan 中/.."
    ours, theirs = (own.preferences(opened.group) for own in (opened.survey, tiny_survey))
    assert (ours.shares == theirs.shares).all()
    own = tiny_survey.group(opened.group).file
    files = {str(file.relative_to(site)) for file in site.rglob("*") if file.is_file()}
    assert files == {
        *("site.json", "survey.json", "questions.parquet", "embeddings.safetensors"),
        own,
    }


def edit(site: Path, **changes: object) -> None:
    file = site / "site.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_survey(site: Path, **changes: object) -> None:
    """Change survey.json and the manifest with it, as another version of the app writes them."""
    file = site / "survey.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    content = file.read_bytes()
    files = json.loads((site / "site.json").read_text())["files"]
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(site, files=files | {"survey.json": entry})


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda site: flip(next((site / "groups").iterdir())), "not as it was written"),
        (lambda site: flip(site / "embeddings.safetensors"), "not as it was written"),
        (lambda site: flip(site / "survey.json"), "not as it was written"),
        (lambda site: (site / "questions.parquet").unlink(), r"questions\.parquet is missing"),
        (lambda site: (site / "groups" / "other.parquet").touch(), "answers of one group alone"),
        (lambda site: (site / "site.json").unlink(), "make one with"),
        (lambda site: (site / "site.json").write_text("{"), r"site\.json is damaged"),
        (lambda site: edit(site, files={}), r"not in its site\.json"),
        (lambda site: edit(site, files={"/etc/passwd": {"bytes": 1, "sha256": ""}}), "is damaged"),
        (lambda site: edit(site, files=[]), "is damaged"),
        (lambda site: edit(site, group="Alder"), "has no group 'Alder'"),
        (lambda site: edit(site, group="Nobody"), "has no group 'Nobody'"),
        (lambda site: edit(site, format_version=2), "version 2, this app reads 1: install a newer"),
        (lambda site: edit(site, format_version=0), "version 0, this app reads 1: write it again"),
        (lambda site: edit_survey(site, format_version=2), "version 2, this app reads 1: install"),
        (lambda site: edit_survey(site, metric="cosine"), r"survey\.json has metric 'cosine'"),
        (lambda site: edit_survey(site, groups=[]), r"has no group 'Élan 中/\.\.'"),
    ],
)
def test_what_was_changed_is_refused(
    site: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(site)
    with pytest.raises(SurveyError, match=message) as refusal:
        Site.open(site)
    assert str(site.parent) not in str(refusal.value)  # the server need not know the node's disk


def test_a_file_of_another_user_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as opening does; root may open anything
        raise PermissionError

    monkeypatch.setattr("hashlib.file_digest", refuse)
    with pytest.raises(SurveyError, match=r"cannot be read \(PermissionError\)"):
        Site.open(site)


def test_the_site_of_a_survey_that_was_changed_is_not_written(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "survey")
    content = bytearray((survey.path / "embeddings.safetensors").read_bytes())
    content[-1] ^= 1
    (survey.path / "embeddings.safetensors").write_bytes(content)
    with pytest.raises(SurveyError, match="not as it was prepared"):
        write_site(PreparedSurvey.open(survey.path), "Alder", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_site_is_hashed_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(PreparedSurvey, "verify")
    assert Site.open(site).group == "Élan 中/.."


def test_a_copy_elsewhere_is_as_good(site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "there")
    assert Site.open(tmp_path / "there").group == "Élan 中/.."


def test_wrong_wishes_are_refused(tiny_survey: PreparedSurvey, site: Path, tmp_path: Path) -> None:
    with pytest.raises(SurveyError, match="is there already"):
        write_site(tiny_survey, "Alder", site)
    with pytest.raises(SurveyError, match="did you mean 'Alder'"):
        write_site(tiny_survey, "Adler", tmp_path / "new")
    with pytest.raises(SurveyError, match="cannot write the site"):
        write_site(tiny_survey, "Alder", Path("/proc/none/site"))
    assert not (tmp_path / "new").exists()


def test_the_check_of_a_site_that_was_tampered_with_fails(site: Path) -> None:
    flip(site / "embeddings.safetensors")
    checked = CliRunner().invoke(app, ["site", "check", str(site)])
    assert checked.exit_code == 1
    assert isinstance(checked.exception, SurveyError)
    assert "embeddings.safetensors is not as it was written" in str(checked.exception)


def test_the_command(tiny_survey: PreparedSurvey, tmp_path: Path) -> None:
    out = tmp_path / "alder"
    written = CliRunner().invoke(
        app, ["site", "create", str(tiny_survey.path), "--group", "Alder", "--out", str(out)]
    )
    assert written.exit_code == 0, written.output
    checked = CliRunner().invoke(app, ["site", "check", str(out)])
    assert "the site of group 'Alder', 30 questions of tiny" in " ".join(checked.output.split())
    (out / "questions.parquet").write_bytes(b"other")
    changed = CliRunner().invoke(app, ["site", "check", str(out)])
    assert changed.exit_code == 1
    assert "questions.parquet is not as it was written" in str(changed.exception)
    for words in (["site"], ["site", str(out)], ["site", "create", str(out), "--group", "Alder"]):
        assert CliRunner().invoke(app, words).exit_code == 2
