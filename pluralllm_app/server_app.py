"""The ServerApp: settings -> roster -> strategy -> rounds -> run record."""

from functools import partial

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pluralllm_app.federation.flower_compat import LOGGER
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning.registry import caution
from pluralllm_app.settings import Settings

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation; every error ends the run as failed, with its message."""
    settings = Settings.from_config(context.run_config)
    if said := caution(settings):
        LOGGER.warning(said)
    run_federation(grid, settings, context.run_config, progress=partial(LOGGER.info, "%s"))
