"""What a run was computed with: versions and hardware."""

import os
import platform
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pluralllm_app import __version__
from pluralllm_app.core.code import installed_hash
from pluralllm_app.records.schema import Hardware

PACKAGES = ("flwr", "ray", "torch", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """The versions of the app, of Python and of what computes with them; `code` is a hash."""
    return {
        "pluralllm_app": __version__,
        "code": _code(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


# They read files, for each run of a comparison.
_version = cache(version)
_code = cache(installed_hash)


def hardware() -> Hardware:
    """This machine."""
    import torch  # not at the top: whoever reads records needs no torch

    return Hardware(
        platform=platform.platform(),
        processor=_processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cpus=os.cpu_count(),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    )


def _processor() -> str:
    """The processor's name, where the system tells it; else its kind."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        if name := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
            return name[1]
    return platform.processor() or platform.machine()
