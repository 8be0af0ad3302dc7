"""Tasks are drawn within bounds, disjoint, and gathered from the right rows."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pluralllm_app.preferences as module
from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import segment_rows
from pluralllm_app.preferences import PreferenceSet, Split, TaskSize, draw_task, split_questions
from pluralllm_app.settings import SplitSettings

# Questions 0 and 2 of a survey of three questions with 2, 3 and 2 options.
TWO_QUESTIONS = PreferenceSet(
    group="Alder",
    embeddings=np.arange(7, dtype=np.float16)[:, None] * np.ones((1, 2), np.float16),
    questions=np.array([0, 2]),
    first_rows=np.array([0, 5]),
    options=np.array([2, 2]),
    shares=np.array([0.1, 0.9, 0.4, 0.6], np.float32),
)


def test_doctest() -> None:
    assert doctest.testmod(module).failed == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=8))
def test_segment_rows_concatenates_ranges(segments: list[tuple[int, int]]) -> None:
    first = np.array([start for start, _ in segments], dtype=np.int64)
    lengths = np.array([length for _, length in segments], dtype=np.int64)
    expected = [row for start, length in segments for row in range(start, start + length)]
    assert segment_rows(first, lengths).tolist() == expected


def test_a_task_has_the_rows_and_shares_of_its_questions() -> None:
    task = TWO_QUESTIONS.task(np.array([1]), np.array([0]))
    assert task.context.questions.tolist() == [2]
    assert task.context.rows.tolist() == [5, 6]
    assert task.context.shares.tolist() == pytest.approx([0.4, 0.6])
    assert task.target.rows.tolist() == [0, 1]
    assert task.target.shares.tolist() == pytest.approx([0.1, 0.9])
    assert {task.context.group, task.target.group} == {"Alder"}
    assert task.context.embeddings is TWO_QUESTIONS.embeddings


def test_selected_questions_come_in_the_order_asked_for() -> None:
    valued = replace(TWO_QUESTIONS, values=np.array([1, 2, 7, 8], np.float32))
    turned = valued.select(np.array([1, 0]))
    assert (turned.questions.tolist(), turned.starts.tolist()) == ([2, 0], [0, 2])
    assert turned.rows.tolist() == [5, 6, 0, 1]
    assert turned.shares.tolist() == pytest.approx([0.4, 0.6, 0.1, 0.9])
    assert turned.values is not None
    assert turned.values.tolist() == [7, 8, 1, 2]
    assert len(valued.select(np.array([], np.int64))) == 0


def test_questions_to_ask_have_no_answers() -> None:
    asked = TWO_QUESTIONS.ask(np.array([1]))
    assert (asked.questions.tolist(), asked.rows.tolist()) == ([2], [5, 6])
    assert not isinstance(asked, PreferenceSet)
    assert not hasattr(asked, "shares")


@given(
    candidates=st.integers(18, 200),
    size=st.tuples(*[st.integers(0, 60)] * 2),
    seed=st.integers(0, 100),
)
def test_drawn_tasks_are_disjoint_and_within_bounds(
    candidates: int, size: tuple[int, int], seed: int
) -> None:
    bounds = TaskSize(9, 9 + size[0], 9, 9 + size[1])
    positions = np.arange(candidates) * 2
    context, target = draw_task(positions, bounds, generator(seed, "test"))
    assert not set(context) & set(target)
    assert set(context) | set(target) <= set(positions)
    assert len(set(context)) == len(context)
    assert bounds.context_min <= len(context) <= bounds.context_max
    assert bounds.target_min <= len(target) <= bounds.target_max


def test_task_sizes_cover_their_whole_range() -> None:
    rng = generator(0, "test")
    drawn = [draw_task(np.arange(100), TaskSize(1, 3, 2, 4), rng) for _ in range(200)]
    assert {len(context) for context, _ in drawn} == {1, 2, 3}
    assert {len(target) for _, target in drawn} == {2, 3, 4}


def test_hold_out_is_a_partition_that_depends_on_group_and_seed() -> None:
    def preferences(group: str) -> PreferenceSet:
        many = np.arange(95)
        return PreferenceSet(
            group=group,
            embeddings=np.zeros((190, 1), np.float16),
            questions=many,
            first_rows=many * 2,
            options=np.full(95, 2),
            shares=np.full(190, 0.5, np.float32),
        )

    def split(group: str, fraction: float = 0.1, seed: int = 0) -> Split:
        return split_questions(preferences(group), "train", SplitSettings(fraction, 0.0, seed))

    first = split("Alder")
    assert len(first.held_out) == 10  # round(9.5) to even
    assert sorted([*first.train, *first.held_out]) == list(range(95))
    assert (first.held_out == split("Alder").held_out).all()
    assert (first.held_out != split("Birch").held_out).any()
    assert (first.held_out != split("Alder", seed=1).held_out).any()
    assert len(split("Alder", fraction=0.001).held_out) == 1
    unsplit = split_questions(preferences("Alder"), "evaluation", SplitSettings(0.1, 0.0, 0))
    assert len(unsplit.train) == 95


def test_generators_are_keyed_by_every_part() -> None:
    def first(*key: str | int) -> int:
        return int(generator(*key).integers(2**62))  # type: ignore[arg-type]

    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "a", 1), (0, "a", "1")]
    assert len({first(*key) for key in keys}) == len(keys)
    assert first(0, "a") == first(0, "a")
