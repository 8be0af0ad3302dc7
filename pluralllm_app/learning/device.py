"""Where a process trains or scores, and how it uses its processor."""

import ctypes
import sys
from functools import lru_cache

import torch
from threadpoolctl import threadpool_limits

# glibc's numbers of two parameters, and bytes. By its own settings it gives the memory of a large
# result back as soon as nothing uses it, and the system clears every page of the next one. The
# second value is the largest that glibc takes.
_TRIM_THRESHOLD = (-1, 2**28)
_MMAP_THRESHOLD = (-3, 2**25)


def torch_device(device: str) -> str:
    """The device to train on: the one asked for, or for ``auto`` CUDA where there is a GPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_processor(threads: int) -> None:
    """Give this process `threads` threads, and let it keep the memory it frees.

    The number of threads can change what is computed in the last bits.
    """
    torch.set_num_threads(threads)
    _limit_products(threads)
    _keep_memory()


@lru_cache(maxsize=1)
def _limit_products(threads: int) -> None:
    threadpool_limits(threads, user_api="blas")


@lru_cache(maxsize=1)
def _keep_memory() -> None:
    if sys.platform == "linux":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_MMAP_THRESHOLD)
