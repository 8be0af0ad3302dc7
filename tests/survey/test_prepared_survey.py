import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pluralllm_app.core.names import file_slugs
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.prepared import PreparedSurvey, check_output, write_survey


def rewrite(file: Path, column: str, values: list) -> None:
    """Replace a column of a parquet file, cutting or keeping the others' rows to fit."""
    table = pq.read_table(file).slice(0, len(values))
    index = table.column_names.index(column)
    field = table.schema.field(column)
    pq.write_table(table.set_column(index, field, pa.array(values, field.type)), file)


def describe(survey: PreparedSurvey, **changes) -> None:
    file = survey.path / "survey.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_written_survey_reads_back(tiny):
    assert [(g.name, g.role, g.questions) for g in tiny.groups] == [
        ("North", "train", 2),
        ("South", "evaluation", 3),
    ]
    assert tiny.embeddings.dtype == np.float16
    assert tiny.embeddings.shape == (7, tiny.dim)
    assert tiny.questions().options[1] == ["Good", "Fair", "Bad"]
    assert tiny.questions().values == [None, [3, 2, 1], [1, 0]]


def test_preferences_come_in_survey_order(tiny):
    north = tiny.preferences("North")
    assert north.questions.tolist() == [0, 2]
    assert north.first_rows.tolist() == [0, 5]
    assert north.options.tolist() == [2, 2]
    assert north.shares.dtype == np.float32
    np.testing.assert_allclose(north.shares, [0.25, 0.75, 0.9, 0.1], rtol=1e-6)
    assert north.values is None
    context = north.select(np.array([1]))
    assert north.embeddings[context.rows].tolist() == [[10, 11], [12, 13]]


def test_tables_that_other_tools_have_written_are_read(tiny):
    file = tiny.path / tiny.group("North").file
    before = tiny.preferences("North").shares
    types = [pa.large_string(), pa.large_list(pa.float64()), pa.int64()]
    names = ["question_id", "shares", "respondents"]
    wide = pq.read_table(file).cast(pa.schema(list(zip(names, types, strict=True))))
    pq.write_table(wide.append_column("note", [["x"] * len(wide)]), file)
    np.testing.assert_array_equal(tiny.preferences("North").shares, before)


def test_shares_are_rescaled(tiny):
    file = tiny.path / tiny.group("North").file
    rewrite(file, "shares", [[0.4, 0.6004], [0.9, 0.1]])
    shares = tiny.preferences("North").shares
    assert shares[:2].sum() == pytest.approx(1, abs=1e-7)
    assert shares[0] == pytest.approx(0.4 / 1.0004)


def test_wasserstein_needs_and_gives_values(content, write):
    with pytest.raises(SurveyError, match="ordinal values"):
        write(metric="wasserstein")
    questions = replace(content["questions"], values=[[0.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0]])
    survey = write(metric="wasserstein", questions=questions)
    assert survey.preferences("North").values.tolist() == [0, 1, 1, 0]


def test_fingerprint_depends_on_questions_and_embeddings_only(content, tmp_path):
    def fingerprint(**changes) -> str:
        arguments = {**content, **changes}
        return write_survey(tmp_path / "other", **arguments, overwrite=True).fingerprint

    original = fingerprint()
    assert fingerprint(roles={"South": "train"}, source="elsewhere") == original
    assert fingerprint(embeddings=content["embeddings"] + 1) != original
    texts = ["Do you drink coffee?", *content["questions"].texts[1:]]
    assert fingerprint(questions=replace(content["questions"], texts=texts)) != original


def test_a_synthetic_survey_says_so_in_its_name(write):
    assert write(synthetic=True).name == "Tiny (synthetic)"
    assert write(overwrite=True).name == "Tiny"


def test_site_needs_no_other_group(tiny):
    (tiny.path / tiny.group("South").file).unlink()
    site = PreparedSurvey.open(tiny.path)
    assert len(site.preferences("North")) == 2
    with pytest.raises(SurveyError, match=r"south\.parquet is missing"):
        site.preferences("South")


def test_embeddings_are_mapped(tiny):
    with open("/proc/self/maps") as maps:
        assert any(str(tiny.path / "embeddings.safetensors") in line for line in maps)


def test_unknown_group_gets_nearest(tiny):
    with pytest.raises(SurveyError, match="did you mean 'North'"):
        tiny.preferences("Norht")


@pytest.mark.parametrize(
    "names", [["São Tomé", "中文", "日本", "a/b", "A b", "..", "a-b", " ", "é" * 300]]
)
def test_odd_group_names_get_safe_unique_files(names):
    slugs = file_slugs(names)
    assert len(set(slugs.values())) == len(names)
    assert slugs["São Tomé"] == "sao-tome"


@given(st.sets(st.text(), min_size=1))
def test_any_names_get_safe_unique_files(names):
    slugs = file_slugs(names)
    assert len(set(slugs.values())) == len(names)
    assert all(
        slug and set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        for slug in slugs.values()
    )


def test_odd_names_survive_the_disk(content, tmp_path):
    answers = replace(content["answers"], groups=["../x", "中文"])
    roles = {"../x": "train", "中文": "train"}
    survey = write_survey(tmp_path / "odd", **{**content, "answers": answers, "roles": roles})
    assert [group.name for group in PreparedSurvey.open(survey.path).groups] == ["../x", "中文"]
    assert len(survey.preferences("../x")) == 3


@pytest.mark.parametrize(
    ("column", "values", "fault"),
    [
        ("shares", [[-0.1, 1.1], [0.9, 0.1]], "negative"),
        ("shares", [[float("nan"), 1.0], [0.9, 0.1]], "not finite"),
        ("shares", [[None, 1.0], [0.9, 0.1]], "not finite"),
        ("shares", [[0.5, 0.4], [0.9, 0.1]], r"1 question whose shares do not sum to 1"),
        ("shares", [[0.5, 0.5], [0.8, 0.1, 0.1]], r"3 shares for a question with 2 options"),
        ("shares", [[0.5, 0.5]], "answers 1 question but survey.json says 2"),
        ("shares", [None, [0.9, 0.1]], "nulls"),
        ("question_id", ["tea", "car"], r"a question that questions.parquet lacks \(row 2\)"),
        ("question_id", ["tea", "tea"], "twice"),
        ("respondents", [-1, 5], "respondents below 1"),
    ],
)
def test_broken_group_is_refused(tiny, column, values, fault):
    rewrite(tiny.path / "groups/north.parquet", column, values)
    with pytest.raises(SurveyError, match=fault) as refusal:
        tiny.preferences("North")
    assert "north.parquet" in str(refusal.value)
    assert "pluralllm prepare" in str(refusal.value)
    assert "0.9" not in str(refusal.value)  # no share leaves a group, not even in an error


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"format_version": 2}, "format version 2, this app reads 1: install a newer"),
        ({"format_version": 0}, "format version 0, this app reads 1: run `pluralllm prepare`"),
        ({"format_version": None}, "format version None, .*: run `pluralllm prepare`"),
        ({"metric": "cosine"}, "metric 'cosine'"),
        ({"dim": "2"}, "'dim'"),
        ({"dim": 3}, r"not F16 \[rows, 3\]"),
        ({"groups": [{"name": "North"}]}, "'file'"),
        (
            {"groups": [{"name": "N", "role": "test", "questions": 1, "file": "groups/n.parquet"}]},
            "role 'test'",
        ),
        (
            {"groups": [{"name": "N", "role": "train", "questions": 1, "file": "groups/../n"}]},
            "odd group file",
        ),
        (
            {
                "groups": [
                    {"name": "N", "role": "train", "questions": 1, "file": f"groups/{stem}.parquet"}
                    for stem in "ab"
                ]
            },
            "two groups with one name",
        ),
    ],
)
def test_broken_description_is_refused(tiny, changes, fault):
    describe(tiny, **changes)
    with pytest.raises(SurveyError, match=fault):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize(
    ("column", "values", "fault"),
    [
        ("question_id", ["tea", "bus", "tea"], "duplicate question ids"),
        ("options", [["Yes", "No"], ["Good"], ["Yes", "No"]], "fewer than two options"),
        ("first_row", [0, 2, 4], "numbers its embedding rows wrongly"),
        ("first_row", [0, 2], "5 options but there are 7 embeddings"),
        ("text", ["a", None, "b"], "nulls in column 'text'"),
    ],
)
def test_broken_questions_are_refused(tiny, column, values, fault):
    rewrite(tiny.path / "questions.parquet", column, values)
    with pytest.raises(SurveyError, match=fault):
        PreparedSurvey.open(tiny.path)


@pytest.mark.parametrize("first", [None, [None, 1.0], [float("nan"), 1.0], [1.0]])
def test_wasserstein_refuses_missing_values(content, write, first):
    questions = replace(content["questions"], values=[[0.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0]])
    survey = write(metric="wasserstein", questions=questions)
    rewrite(survey.path / "questions.parquet", "values", [first, [3.0, 2.0, 1.0], [1.0, 0.0]])
    with pytest.raises(SurveyError, match="lacks ordinal values"):
        PreparedSurvey.open(survey.path)


@pytest.mark.parametrize(
    "file", ["survey.json", "questions.parquet", "embeddings.safetensors", "groups/north.parquet"]
)
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damaged_file_is_refused(tiny, file, damage):
    path = tiny.path / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SurveyError, match=re.escape(Path(file).name)):
        PreparedSurvey.open(tiny.path).preferences("North")


@pytest.mark.parametrize(
    "tensors",
    [
        {"embeddings": np.zeros((7, 2), np.float32)},
        {"embeddings": np.zeros(7, np.float16)},
        {"other": np.zeros((7, 2), np.float16)},
    ],
)
def test_wrong_embeddings_are_refused(tiny, tensors):
    save_file(tensors, tiny.path / "embeddings.safetensors")
    with pytest.raises(SurveyError, match=r"embeddings\.safetensors"):
        PreparedSurvey.open(tiny.path)


def test_where_a_damaged_file_lies_is_a_note(tiny):
    (tiny.path / tiny.group("North").file).write_bytes(b"")
    with pytest.raises(SurveyError) as raised:
        tiny.preferences("North")
    assert str(tiny.path) not in str(raised.value)  # which a node's server is told
    assert raised.value.__notes__ == [f"The directory is {tiny.path}."]


def test_no_survey_at_the_path(tmp_path):
    with pytest.raises(SurveyError, match="does not exist"):
        PreparedSurvey.open(tmp_path / "none")
    with pytest.raises(SurveyError, match=r"no survey\.json"):
        PreparedSurvey.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SurveyError, match="not a directory"):
        PreparedSurvey.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"embeddings": np.full((7, 2), np.inf, np.float16)}, "finite"),
        ({"embeddings": np.zeros((6, 2), np.float16)}, r"expected float16 \[7, dim\]"),
        ({"roles": {"North": "test"}}, "role 'test'"),
        ({"roles": {"West": "train"}}, "'West' answers no question"),
        ({"roles": {}}, "no group"),
        ({"metric": "jensen"}, "did you mean 'jensen-shannon'"),
    ],
)
def test_unfit_content_is_not_written(write, tmp_path, changes, fault):
    with pytest.raises(SurveyError, match=fault):
        write(**changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ids": ["tea", "tea", "sea"]}, "'tea' occurs twice"),
        ({"texts": ["", "b", "c"]}, "'tea' has no text"),
        ({"options": [["Yes"], ["Good", "Fair", "Bad"], ["Yes", "No"]]}, "1 option"),
        ({"values": [[1.0], None, None]}, "one finite ordinal value per option"),
        ({"values": [[1.0, 1.0], None, None]}, "same ordinal value"),
    ],
)
def test_unfit_questions_are_not_written(content, write, changes, fault):
    with pytest.raises(SurveyError, match=fault):
        write(questions=replace(content["questions"], **changes))


def test_failed_write_leaves_nothing(write, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pluralllm_app.survey.prepared.save_file", full_disk)
    with pytest.raises(SurveyError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_only_a_survey_is_overwritten(write, tmp_path):
    first = write()
    with pytest.raises(SurveyError, match="--overwrite"):
        write()
    second = write(name="Second", overwrite=True)
    assert second.name == "Second"
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]
    (tmp_path / "tiny" / "notes.txt").touch()
    with pytest.raises(SurveyError, match="other files"):
        write(overwrite=True)


def test_output_is_checked_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SurveyError, match="is a file"):
        check_output(tmp_path / "file")
    with pytest.raises(SurveyError, match="cannot write"):
        check_output(tmp_path / "file" / "survey")
    with pytest.raises(SurveyError, match="cannot write"):
        check_output("/proc/survey")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    shutil.copy(tmp_path / "file", tmp_path / "empty" / "survey.txt")
    with pytest.raises(SurveyError, match="other files"):
        check_output(tmp_path / "empty", overwrite=True)
