"""A page in headless Chromium."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "no `chromium` on PATH: pages are not tested in a browser"


def rendered(url: str, home: Path, allowed: str | None = None) -> str:
    """The document after its scripts have run and marked it as ready.

    Messages of the console fail the test.

    Args:
        url: of the page.
        home: directory of the browser's profile.
        allowed: part of a message that may be there.
    """
    done = subprocess.run(
        [
            CHROMIUM or "",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            f"--user-data-dir={home}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    messages = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    assert [line for line in messages if allowed is None or allowed not in line] == []
    assert re.search("<html[^>]* data-ready", done.stdout)
    return done.stdout
