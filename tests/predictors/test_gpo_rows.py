"""Rows gathered for the network: those of the right options, on the right device."""

import numpy as np
import pytest
import torch

from pluralllm_app.core.segments import Halves
from pluralllm_app.predictors.gpo.rows import Batch, embeddings_on
from pluralllm_app.preferences import PreferenceSet
from tests.support.preferences import preference_set

CPU = torch.device("cpu")
OPTIONS = np.array([2, 3, 2])
EMBEDDINGS = np.arange(7, dtype=np.float16)[:, None] * np.ones((1, 2), np.float16)
GROUP = preference_set(
    "Alder", {0: [0.1, 0.9], 1: [0.2, 0.3, 0.5], 2: [0.4, 0.6]}, OPTIONS, EMBEDDINGS
)


def test_a_batch_has_context_and_target_rows_task_by_task() -> None:
    tasks = [
        GROUP.task(np.array([2]), np.array([0])),
        GROUP.task(np.array([0]), np.array([2, 1])),
    ]
    batch = Batch.gather(tasks, CPU)
    assert batch.x[:, 0].tolist() == [5, 6, 0, 1, 0, 1, 5, 6, 2, 3, 4]
    assert batch.x.dtype == torch.float32
    assert batch.y.tolist() == pytest.approx([0.4, 0.6, 0, 0, 0.1, 0.9, 0, 0, 0, 0, 0])
    assert (batch.context, batch.target) == ([2, 2], [2, 5])
    assert batch.options.tolist() == [2, 2, 3]
    assert batch.shares.tolist() == pytest.approx([0.1, 0.9, 0.4, 0.6, 0.2, 0.3, 0.5])


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is copied to the meta device."""
    copied: list[int] = []
    original = torch.Tensor.to

    def to(tensor: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        moved = original(tensor, *arguments, **named)
        if moved.device.type == "meta":
            copied.append(tensor.numel())
        return moved

    monkeypatch.setattr(torch.Tensor, "to", to)
    return copied


def test_the_table_is_copied_to_a_device_once(copies: list[int]) -> None:
    table = np.zeros((100, 50), np.float16)
    group = preference_set("Alder", {0: [0.1, 0.9]}, OPTIONS, table)
    for _ in range(3):
        batch = Batch.gather([group.task(np.array([0]), np.array([0]))], torch.device("meta"))
    assert {batch.x.device.type, batch.y.device.type, batch.shares.device.type} == {"meta"}
    assert batch.options.device.type == "cpu"
    assert copies.count(table.size) == 1


@pytest.mark.parametrize("length", [1.0, 0.7])
def test_vectors_no_longer_than_1_are_read_with_numbers_of_about_1(length: float) -> None:
    """Whatever a single row is; others are read as they are."""
    table = np.random.default_rng(0).normal(size=(7, 16))
    table *= length / np.linalg.norm(table, axis=1, keepdims=True)
    table[0] = 0
    unit, longer = table.astype(np.float16), (4 * table).astype(np.float16)

    def read(embeddings: Halves) -> torch.Tensor:
        return embeddings_on(
            CPU, [preference_set("Alder", {1: [0.2, 0.8, 0]}, OPTIONS, embeddings)]
        )

    np.testing.assert_allclose(read(unit).square().mean(1), 1, atol=1e-2)
    np.testing.assert_array_equal(read(longer), longer[2:5].astype(np.float32))


def test_questions_of_two_surveys_do_not_mix() -> None:
    other: PreferenceSet = preference_set("Birch", {0: [0.5, 0.5]}, OPTIONS, EMBEDDINGS.copy())
    with pytest.raises(ValueError, match="one opened survey"):
        embeddings_on(CPU, [GROUP, other])
