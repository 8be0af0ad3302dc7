"""How many people were asked, where the source knows it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pluralllm_app.survey.prepared import PreparedSurvey


def test_respondents_are_kept_in_the_order_of_the_questions(tiny):
    tiny_north = tiny.preferences("North")
    assert tiny_north.respondents.dtype == np.float64
    assert tiny_north.respondents.tolist() == [10, 10]


def test_where_they_are_unknown_they_are_nan(content, write):
    # North answers sea before tea; South answers all three.
    asked = np.array([12.4, 20.0, np.nan, 30.0, np.nan])
    survey = write(answers=replace(content["answers"], respondents=asked))
    np.testing.assert_array_equal(survey.preferences("North").respondents, [np.nan, 12])
    np.testing.assert_array_equal(survey.preferences("South").respondents, [20, 30, np.nan])


def test_a_source_that_knows_none_has_none(content, write):
    survey = write(answers=replace(content["answers"], respondents=None))
    assert survey.preferences("North").respondents is None
    assert survey.preferences("North").select(np.array([0])).respondents is None


def test_surveys_of_earlier_versions_are_read(tiny):
    file = tiny.path / tiny.group("North").file
    table = pq.read_table(file).replace_schema_metadata(None)
    nothing = pa.array([None, None], pa.int64())
    pq.write_table(table.set_column(2, table.schema.field(2), nothing), file)
    survey = PreparedSurvey.open(tiny.path)
    north = survey.preferences("North")
    assert north.respondents is None
    assert north.description is None
    assert survey.description("North") is None
