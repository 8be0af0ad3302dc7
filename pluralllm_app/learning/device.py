"""Where a process trains or scores, and how it uses its processor."""

import ctypes
import sys
from functools import lru_cache

from pluralllm_app.learning.threads import limit_products

# Two parameters of glibc's malloc, as (number, bytes). With its defaults, the memory of a large
# result goes back to the system as soon as it is free, and the system has to clear every page of
# the next one. The second value is the largest that glibc accepts.
_TRIM_THRESHOLD = (-1, 2**28)
_MMAP_THRESHOLD = (-3, 2**25)


def torch_device(device: str) -> str:
    """The device to train on: the one asked for; for ``auto``, CUDA where there is a GPU."""
    if device != "auto":
        return device
    import torch  # not at the top: some learners do without

    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_processor(threads: int, with_torch: bool = True) -> None:
    """Let this process compute with so many threads, and let it keep the memory that it frees.

    The number of threads can change the last bits of what is computed. Where nothing is computed
    `with_torch`, it is not imported, which takes longer than a round of factors.
    """
    if with_torch:
        import torch

        torch.set_num_threads(threads)
    limit_products(threads)
    _keep_memory()


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    if sys.platform == "linux":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_MMAP_THRESHOLD)
