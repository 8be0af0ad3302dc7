"""The ServerApp: settings -> roster -> strategy -> rounds -> run record."""

from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pluralllm_app.federation.flower_compat import LOGGER, is_simulated, log_errors_plainly
from pluralllm_app.federation.places import check_supernodes, with_places
from pluralllm_app.federation.registration import read_registration
from pluralllm_app.learning.registry import caution
from pluralllm_app.settings import Settings

app = ServerApp()
log_errors_plainly()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation; every error ends the run as failed, with its message."""
    say = partial(LOGGER.info, "%s")
    config = with_places(context.run_config, context.run_id, simulated=is_simulated(grid))
    settings = Settings.from_config(config)
    members = None
    if is_simulated(grid):
        check_supernodes(grid, settings, say)
    elif (members := read_registration()) is None:
        LOGGER.warning(
            "the SuperLink was not started by server/start.sh of a deployment: what nodes say of "
            "themselves is believed"
        )
    if settings.federation.purpose == "rewards":
        from pluralllm_app.federation.reward_server import run_rewards

        run_rewards(grid, settings, say, members)
        return
    if note := caution(settings):
        LOGGER.warning(note)
    say(f"Run directory: {settings.path('out')}")
    # Not at the top: it takes seconds to import, and the mistakes above are told at once.
    from pluralllm_app.federation.rounds import run_federation

    run_federation(grid, settings, config, say, members)
    say(f"Completed: {settings.path('out')}")
