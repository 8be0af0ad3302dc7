"""A model on the cores of a CPU: batches side by side, each on one thread, with numpy's products.

Torch would share each of the many small operations of a batch between all cores, which then wait
for one another most of the time. Numpy's OpenBLAS uses AVX-512 on processors of every maker,
torch's MKL on those of its own maker only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let each thread of Python that the block starts compute alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def use_numpy(model: Any) -> None:
    """Let numpy compute the linear layers of a float32 model on a CPU, for inference only."""
    for module in model.modules():
        if type(module) is nn.Linear:
            bias = None if module.bias is None else module.bias.detach()
            module.forward = partial(_linear, module.weight.detach(), bias)  # type: ignore[method-assign]


@np.errstate(all="ignore")  # as in torch: whoever uses the result checks that it is finite
def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]."""
    product = x.new_empty(*x.shape[:-1], len(weight))
    rows = x.reshape(-1, x.shape[-1]).numpy()
    np.matmul(rows, weight.T.numpy(), out=product.view(-1, len(weight)).numpy())
    return product if bias is None else product.add_(bias)
