"""The demo survey, for runs that are given none."""

import os
import shutil
from pathlib import Path

from rich.console import Console

from pluralllm_app.core.atomic import beside
from pluralllm_app.core.user_directories import cache_directory
from pluralllm_app.engines.app_files import APP
from pluralllm_app.errors import UserError

DEMO = APP / "data" / "demo"


def demo_survey(console: Console) -> Path:
    """The demo survey in DEMO; it is made there if nothing is.

    Where DEMO belongs to another user, it is one in the user's cache directory.

    Raises:
        UserError: something else is there, for instance the demo of another seed.
    """
    console.print("No --survey given: taking the demo survey, which is synthetic.")
    with console.status("preparing it"):
        from pluralllm_app.survey.demo import demo_name, write_demo
        from pluralllm_app.survey.prepare import prepare
        from pluralllm_app.survey.prepared import PreparedSurvey

        if not os.access(next(place for place in DEMO.parents if place.exists()), os.W_OK):
            own = cache_directory() / demo_name()
            write_demo(own)
            return own
        fresh = beside(DEMO, "demo")
        try:
            demo = prepare("demo", fresh, console=Console(quiet=True))  # takes a moment only
            try:
                fresh.rename(DEMO)
            except OSError:  # something is there, perhaps of a command that starts just now
                if not PreparedSurvey.open(DEMO).equals(demo):
                    raise UserError(
                        f"{DEMO} is not the built-in demo survey: give it as --survey "
                        f"{DEMO}, or move it away"
                    ) from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return DEMO
