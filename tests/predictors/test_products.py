from collections.abc import Iterator

import pytest
import torch

from pluralllm_app.learning.device import prepare_processor
from pluralllm_app.learning.threads import limit_products
from pluralllm_app.predictors.gpo import products
from pluralllm_app.predictors.gpo.products import attention, linear


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_attention_by_hand() -> None:
    torch.set_num_threads(1)
    # Two heads of width 1. The first query of head 0 scores 0 and ln 3, so weighs 1/4 and 3/4;
    # head 1 scores 0 and 0, so weighs 1/2 and 1/2.
    queries = torch.tensor([[3.0, 1.0]]).log()
    keys = torch.tensor([[0.0, 5.0], [1.0, -7.0]])
    values = torch.tensor([[4.0, 10.0], [8.0, 20.0]])
    torch.testing.assert_close(attention(queries, keys, values, 2), torch.tensor([[7.0, 15.0]]))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
@pytest.mark.parametrize("weights", [2**24, 1])
def test_products_of_one_thread_and_of_several_are_the_same(
    leading: tuple[int, ...], weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "BLOCK_WEIGHTS", weights)  # 1: a block is a single query
    x, context = drawn(*leading, 7, 5), drawn(*leading, 4, 5)
    weight, bias = drawn(24, 5), drawn(24)

    def run(threads: int) -> tuple[torch.Tensor, ...]:
        torch.set_num_threads(threads)
        keys, values = linear(context, weight[8:], bias[8:]).chunk(2, dim=-1)
        attended = attention(linear(x, weight[:8], bias[:8]), keys, values, 4)
        loss = attended.square().sum()
        return attended, *torch.autograd.grad(loss, (x, context, weight, bias))

    for ours, torchs in zip(run(1), run(2), strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("threads", [1, 2])
def test_any_batch_and_type_is_taken(threads: int) -> None:
    torch.set_num_threads(threads)
    x, context = torch.randn(0, 7, 8), torch.randn(0, 4, 8)
    assert attention(x, context, context, 2).shape == x.shape
    half, keys = torch.randn(7, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    exact = attention(half.float(), keys.float(), keys.float(), 2)
    torch.testing.assert_close(attention(half, keys, keys, 2).float(), exact, atol=0.02, rtol=0.02)
    linear(half, keys, torch.zeros(4).bfloat16())


def test_products_differentiate() -> None:
    torch.set_num_threads(1)
    assert torch.autograd.gradcheck(linear, (drawn(3, 4), drawn(2, 4), drawn(2)))
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention(q, k, v, 2), (drawn(5, 4), drawn(3, 4), drawn(3, 4))
    )


def test_a_prepared_process_has_that_many_threads() -> None:
    from threadpoolctl import threadpool_info

    limit_products.cache_clear()  # libraries that tests loaded since then have their own number
    for threads in (1, 2, 1):
        prepare_processor(threads)
        assert torch.get_num_threads() == threads
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert blas
        assert set(blas) == {threads}
