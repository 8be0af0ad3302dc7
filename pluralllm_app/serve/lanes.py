"""Work in threads, one request after another, so that the service answers meanwhile."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pluralllm_app.serve.limits import WAITING, WAITING_SECONDS
from pluralllm_app.serve.messages import Refused

_BUSY = "the service is busy: try again in a moment"


class Lane:
    """One thread, and a queue of limited length before it.

    Two requests at once would take the same cores from each other, and memory for both.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._held = 0

    async def do(self, work: Callable[[], bytes]) -> bytes:
        """Do some work when its turn comes.

        Raises:
            Refused: 503 where too much waits already, or its turn did not come in time.
        """
        if self._held >= WAITING:
            raise Refused(503, _BUSY, {"Retry-After": "1"})
        give_up = time.monotonic() + WAITING_SECONDS

        def in_turn() -> bytes:
            if time.monotonic() > give_up:
                raise Refused(503, _BUSY, {"Retry-After": "5"})
            return work()

        self._held += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, in_turn)
        finally:
            self._held -= 1

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
