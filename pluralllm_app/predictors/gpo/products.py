"""The network's matrix products: by numpy on one thread of a CPU, by torch everywhere else.

Torch multiplies with MKL, which uses AVX-512 on Intel processors only. Numpy multiplies with
OpenBLAS, which uses AVX-512 on every processor that has it. With several threads, those of OpenBLAS
and those of torch would wait for one another, so numpy is used with one thread only.

On a CPU, attention is computed as a few large products: torch's fused kernel would split the few
rows of a task into products that are too small to be fast.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# At most this many attention weights are held at once, over all heads: 64 MiB.
BLOCK_WEIGHTS = 2**24


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., N, in] to [..., N, out]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., N, in] times weight [out, in] transposed, plus bias [out]."""
    if _plain(x) and torch.get_num_threads() == 1:
        product: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return F.linear(x, weight, bias)


def attention(queries: Tensor, keys: Tensor, values: Tensor, nhead: int) -> Tensor:
    """Multi-head attention of queries [..., N, d] over keys and values [..., C, d]: [..., N, d]."""
    if not _plain(queries):
        # The fused kernel needs exactly one leading dimension besides the heads.
        q, k, v = (
            _heads(part.reshape(-1, *part.shape[-2:]), nhead) for part in (queries, keys, values)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(-3, -2).reshape(queries.shape)
    # How many attention weights one query has.
    each = max(1, math.prod(queries.shape[:-2]) * nhead * keys.shape[-2])
    blocks: list[Tensor] = [
        _Attention.apply(block, keys, values, nhead)  # type: ignore[no-untyped-call]
        for block in torch.split(queries, max(1, BLOCK_WEIGHTS // each), dim=-2)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def _plain(x: Tensor) -> bool:
    """Whether numpy can compute the products of x: it is on a CPU, and of a type numpy has."""
    known = x.dtype in (torch.float32, torch.float64)
    return known and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _heads(x: Tensor, nhead: int) -> Tensor:
    """View [..., N, d] as [..., heads, N, d / heads]."""
    return x.view(*x.shape[:-1], nhead, x.shape[-1] // nhead).transpose(-3, -2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The matrices a [..., N, K] times b [..., K, M]."""
    # Into memory that torch allocates, because its loops read that faster than numpy's.
    return _multiply(a, b, a.new_empty(*a.shape[:-1], b.shape[-1]))


@np.errstate(all="ignore")  # as in torch, whoever uses the result checks that it is finite
def _multiply(a: Tensor, b: Tensor, into: Tensor) -> Tensor:
    if torch.get_num_threads() == 1:
        np.matmul(a.numpy(), b.numpy(), out=into.numpy())
        return into
    return into.copy_(a @ b)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight.T).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx = _product(gradient, weight) if ctx.needs_input_grad[0] else None
        rows = gradient.reshape(-1, len(weight))
        return dx, _product(rows.T, x.reshape(-1, x.shape[-1])), rows.sum(0)


class _Attention(Function):
    """Attention that keeps its weights for the backward pass."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, nhead: int) -> Tensor:
        scaled = queries * (queries.shape[-1] // nhead) ** -0.5
        q, k, v = (_heads(part, nhead) for part in (scaled, keys, values))
        weights = _product(q, k.mT).softmax(dim=-1)
        attended = torch.empty_like(scaled)
        _multiply(weights, v, _heads(attended, nhead))
        ctx.save_for_backward(scaled, keys, values, weights)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scaled, keys, values, weights = ctx.saved_tensors
        nhead = weights.shape[-3]
        q, k, v, g = (_heads(part, nhead) for part in (scaled, keys, values, gradient))
        dq, dk, dv = (part.new_empty(part.shape) for part in (scaled, keys, values))
        _multiply(weights.mT, g, _heads(dv, nhead))
        dweights = _product(g, v.mT)
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
        _multiply(dscores, k, _heads(dq, nhead))
        _multiply(dscores.mT, q, _heads(dk, nhead))
        return dq.mul_((scaled.shape[-1] // nhead) ** -0.5), dk, dv, None
