"""The predictor's matrix products: by numpy on one thread of a CPU in float32, else by torch.

Torch multiplies by MKL, which uses AVX-512 on processors of its own maker only; numpy by OpenBLAS,
which uses it wherever it is. Torch's fused attention splits the few rows of a task into products
too small for either. On several threads, those of OpenBLAS and torch would wait for one another.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pluralllm_app.segments import Floats

# Attention weights of a block of queries, of all heads: 64 MiB.
_BLOCK_WEIGHTS = 2**24


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., N, in] to [..., N, out]."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., N, in] times weight [out, in] transposed, plus bias [out]."""
    if _by_torch(x):
        return F.linear(x, weight, bias)
    product: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return product


def attention(queries: Tensor, keys: Tensor, values: Tensor, nhead: int) -> Tensor:
    """Multi-head attention of queries [..., N, d] over keys and values [..., C, d]: [..., N, d]."""
    if _by_torch(queries):
        # Only with exactly one leading dimension besides the heads does the fused kernel apply.
        q, k, v = (
            _heads(part.reshape(-1, *part.shape[-2:]), nhead) for part in (queries, keys, values)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(-3, -2).reshape(queries.shape)
    others = queries[..., 0, 0].numel() * nhead * keys.shape[-2]
    blocks: list[Tensor] = [
        _Attention.apply(block, keys, values, nhead)  # type: ignore[no-untyped-call]
        for block in torch.split(queries, max(1, _BLOCK_WEIGHTS // others), dim=-2)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)


def _by_torch(x: Tensor) -> bool:
    alone = x.device.type == "cpu" and torch.get_num_threads() == 1
    return not alone or torch.is_autocast_enabled("cpu")


def _heads(x: Tensor, nhead: int) -> Tensor:
    """View [..., N, d] as [..., heads, N, d / heads]."""
    return x.view(*x.shape[:-1], nhead, x.shape[-1] // nhead).transpose(-3, -2)


def _product(a: Floats, b: Floats, like: Tensor) -> Tensor:
    """The matrices a [..., N, K] times b [..., K, M], in memory aligned as torch likes it."""
    product = like.new_empty(*a.shape[:-1], b.shape[-1])
    _multiply(a, b, product.numpy())
    return product


@np.errstate(all="ignore")  # weights that diverge are noticed by their values, as torch's are
def _multiply(a: Floats, b: Floats, into: Floats) -> None:
    np.matmul(a, b, out=into)


def _turned(x: Floats) -> Floats:
    """The matrices of x transposed, a view."""
    return x.swapaxes(-1, -2)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x.numpy(), weight.numpy().T, x).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _product(gradient.numpy(), weight.numpy(), x)
        rows = gradient.reshape(-1, len(weight))
        dweight = _product(rows.numpy().T, x.reshape(-1, x.shape[-1]).numpy(), x)
        return dx, dweight, rows.sum(0)


class _Attention(Function):
    """Attention with its weights kept for the way back."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, nhead: int) -> Tensor:
        scaled = queries * (queries.shape[-1] // nhead) ** -0.5
        q, k, v = (_heads(part, nhead).numpy() for part in (scaled, keys, values))
        weights = _product(q, _turned(k), scaled).softmax(dim=-1)
        attended = torch.empty_like(scaled)
        _multiply(weights.numpy(), v, _heads(attended, nhead).numpy())
        ctx.save_for_backward(scaled, keys, values, weights)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scaled, keys, values, weights = ctx.saved_tensors
        nhead = weights.shape[-3]
        q, k, v, g = (_heads(part, nhead).numpy() for part in (scaled, keys, values, gradient))
        dq, dk, dv = (part.new_empty(part.shape) for part in (scaled, keys, values))
        _multiply(_turned(weights.numpy()), g, _heads(dv, nhead).numpy())
        dweights = _product(g, _turned(v), scaled)
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype).numpy()
        _multiply(dscores, k, _heads(dq, nhead).numpy())
        _multiply(_turned(dscores), q, _heads(dk, nhead).numpy())
        return dq.mul_((scaled.shape[-1] // nhead) ** -0.5), dk, dv, None
