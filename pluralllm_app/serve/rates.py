"""How often each address may ask: a bucket of permits that fills again steadily."""

import ipaddress
from collections import OrderedDict

from pluralllm_app.serve.limits import ADDRESSES, BURST, RATE


class Rates:
    """A bucket for each address that asked lately."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Take a permit of an address.

        Args:
            address: of the client.
            now: seconds of a clock that never goes back.

        Returns:
            The seconds to wait where there is none; 0 where one was taken.
        """
        key = holder(address)
        permits, before = self._buckets.pop(key, (float(BURST), now))
        permits = min(float(BURST), permits + RATE * (now - before))
        taken = permits >= 1
        self._buckets[key] = permits - taken, now
        while len(self._buckets) > ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - permits) / RATE


def holder(address: str) -> str:
    """Who an address belongs to: of IPv6, one holder has all addresses of a /64 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
