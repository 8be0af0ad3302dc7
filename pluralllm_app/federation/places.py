"""Where a run is that Flower's own command started, and whether its simulation fits the survey.

`flwr run .` names no survey and no run directory. In a simulation it gets the demo survey, and
anywhere a new run directory, both in directories of the user, since Flower does not tell an app
where the command was given.
"""

import os
import time
from collections.abc import Callable, Mapping

from flwr.serverapp import Grid

from pluralllm_app.core.user_directories import cache_directory, data_directory
from pluralllm_app.core.wording import many
from pluralllm_app.errors import FederationError
from pluralllm_app.settings import PATHS, Scalar, Settings
from pluralllm_app.survey.demo import demo_name, write_demo
from pluralllm_app.survey.prepared import PreparedSurvey

SETTLE_SECONDS = 0.5  # how long no further node of a simulation must join


def with_places(config: Mapping[str, Scalar], run_id: int, *, simulated: bool) -> dict[str, Scalar]:
    """A run config with a survey, where the run is simulated, and a run directory.

    What the config or the environment names stays. Server and nodes find the same.

    Args:
        config: the run config.
        run_id: Flower's number of the run.
        simulated: whether all groups are nodes of a simulation on this machine.
    """
    places = dict(config)
    given = {key: config[key] or os.environ.get(variable) for key, variable in PATHS.items()}
    if simulated and not given["survey"]:
        places["survey"] = str(cache_directory() / demo_name())
    if not given["out"] and not given["resume-from"]:
        places["out"] = str(data_directory() / "runs" / f"flower-{run_id}")
    return places


def check_supernodes(grid: Grid, settings: Settings, say: Callable[[str], None]) -> None:
    """Check that a simulation has a SuperNode for each group; make the demo survey if need be.

    Raises:
        UserError: it has not, naming the option that is right; the survey cannot be opened.
    """
    survey = settings.path("survey")
    if survey.name == demo_name() and not survey.exists():
        say(f"No survey is given: taking the demo survey, which is synthetic, in {survey}")
        write_demo(survey)
    groups = len(PreparedSurvey.open(survey).groups)
    connected, changed = 0, time.monotonic()
    while connected != groups and time.monotonic() < changed + SETTLE_SECONDS:
        time.sleep(0.05)
        if (now := len(list(grid.get_node_ids()))) != connected:
            connected, changed = now, time.monotonic()
    if connected != groups:
        raise FederationError(
            f"the survey {survey.name} has {many(groups, 'group')}, and the simulation "
            f"{many(connected, 'SuperNode')}. It needs one for each group: "
            f'flwr run . --stream --federation-config "num-supernodes={groups}"'
        )
