from itertools import pairwise

import numpy as np

from pluralllm_app.core.segments import segment_sums
from pluralllm_app.survey.embedders.hashing import HashingEmbedder
from pluralllm_app.survey.sources.demo import EVALUATION_GROUPS, TRAIN_GROUPS, demo


def test_size_and_labels():
    survey = demo()
    assert len(TRAIN_GROUPS) >= 8
    assert len(EVALUATION_GROUPS) >= 6
    assert len(survey.questions) >= 300
    assert survey.synthetic
    assert "synthetic" in survey.source
    assert {2, 3, 4, 5, 6} == set(survey.questions.counts.tolist())
    survey.questions.check()


def test_groups_answer_part_of_the_questions():
    survey = demo()
    for count in survey.answers.counts().values():
        assert 0.5 * len(survey.questions) < count < len(survey.questions)


def test_shares_are_observed_from_the_stated_respondents():
    answers, questions = demo().answers, demo().questions
    counts = questions.counts[answers.question]
    np.testing.assert_allclose(segment_sums(answers.shares, counts), 1)
    people = answers.shares * np.repeat(answers.respondents, counts)
    np.testing.assert_allclose(people, np.rint(people), atol=1e-9)


def test_one_seed_gives_one_survey():
    first, again, other = demo(1), demo(1), demo(2)
    assert first.questions == again.questions
    np.testing.assert_array_equal(first.answers.shares, again.answers.shares)
    assert first.questions != other.questions


def test_groups_differ_by_more_than_noise():
    """With 8 other groups, their mean is no good guess: context must pay."""
    survey = demo()
    answers, counts = survey.answers, survey.questions.counts
    first_rows = survey.questions.first_rows
    table = np.full((len(answers.groups), counts.sum()), np.nan)
    lengths = counts[answers.question]
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(first_rows[answers.question], lengths) + inside
    table[np.repeat(answers.group, lengths), rows] = answers.shares
    spread = np.nanstd(table, axis=0).mean()
    noise = np.sqrt(0.25 / answers.respondents.min())
    assert spread > 3 * noise


def test_embeddings_tell_all_options_apart(tmp_path):
    from rich.console import Console

    questions = demo().questions
    rows = HashingEmbedder().embed(questions, Console(), tmp_path)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert all(a < b for a, b in pairwise(questions.first_rows.tolist()))
