"""Why something cannot be had from the hub, in words that name what stands between."""

import os

from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HFValidationError

from pluralllm_app.core.environment import proxy_to


def reason(error: Exception) -> str:
    """Return the first line of an error, with the proxy that was asked and an address of one's own.

    Nobody sees from "Connection refused" that it was a proxy that refused.
    """
    first = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, HFValidationError):  # nothing was asked
        return first
    own = f"; asked at HF_ENDPOINT={ENDPOINT}" if "HF_ENDPOINT" in os.environ else ""
    proxy = proxy_to(ENDPOINT, os.environ)
    return f"{first}{own}" + (f"; asked through the proxy {proxy}" if proxy else "")
