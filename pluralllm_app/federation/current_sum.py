"""The secure sum that a server is making, and what is recorded of it."""

import time
from dataclasses import dataclass

from pluralllm_app.federation.summands import Summands
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.records.schema import SecureSum
from pluralllm_app.secure_sum.messages import Meaning
from pluralllm_app.secure_sum.server import ServerSum


@dataclass
class CurrentSum:
    """The sum that is being made."""

    server: ServerSum
    summands: Summands
    sent: Arrays
    meaning: Meaning
    since: float
    bytes: int = 0
    exchanges: int = 0  # besides that of the vectors

    def entry(self, threshold: int) -> SecureSum:
        """What is recorded of it, once it is opened."""
        return SecureSum(
            groups=len(self.server.survivors),
            cohort=len(self.server.invitation.cohort),
            threshold=threshold,
            exchanges=self.exchanges,
            bytes=self.bytes,
            seconds=round(time.perf_counter() - self.since, 3),
            bits=self.summands.layout.bits,
        )
