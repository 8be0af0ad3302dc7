"""How many threads numpy's products may use in this process."""

from functools import lru_cache

from threadpoolctl import threadpool_limits


@lru_cache(maxsize=1)
def limit_products(threads: int) -> None:
    """Let numpy use so many threads from now on; their number can change the last bits."""
    threadpool_limits(threads, user_api="blas")
