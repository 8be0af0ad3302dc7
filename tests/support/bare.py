"""Programs that run as if the base installation were all there is."""

import subprocess
import sys

from pluralllm_app.core.parts import PARTS
from tests.conftest import ROOT

OPTIONAL = sorted({module for modules in PARTS.values() for module in modules})
# Python then says of each that there is no such module.
BARE = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
COMMAND = "from pluralllm_app.cli.main import main; main()"


def bare(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that finds no module of an optional part."""
    return subprocess.run(
        [sys.executable, "-c", BARE + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
