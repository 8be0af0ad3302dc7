"""The demo survey as files, made where there is none."""

import shutil
from pathlib import Path

from rich.console import Console

from pluralllm_app import __version__
from pluralllm_app.core.atomic import beside
from pluralllm_app.errors import SurveyError


def demo_name() -> str:
    """What a directory of this version's demo survey is called."""
    return f"demo-{__version__}"


def write_demo(path: Path) -> None:
    """Write the demo survey to the directory `path`, unless something is there.

    Raises:
        SurveyError: it cannot be written.
    """
    # Not at the top: most commands have a survey.
    from pluralllm_app.survey.prepare import prepare

    fresh = beside(path, "demo")
    try:
        if not path.exists():
            prepare("demo", fresh, console=Console(quiet=True))  # takes a moment only
            fresh.rename(path)
    except OSError as error:  # another process may have been faster
        if not path.exists():
            raise SurveyError(f"cannot write the demo survey {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
