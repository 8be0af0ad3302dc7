"""Runs an app in Flower's simulation from this process, with what is private in Flower.

Flower's own command submits the app to a SuperLink, which starts a process, which starts one like
this: each imports Flower before the next begins. See `flower_compat` for the rest that is private.
"""

import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from pluralllm_app.settings import Scalar


def simulate(
    app: Path,
    run_config: Mapping[str, Scalar],
    supernodes: int,
    machine: Mapping[str, int],
    client: Mapping[str, float],
) -> None:
    """Run an app to its end.

    Args:
        app: its directory, with its pyproject.toml.
        run_config: overrides values of the app's own configuration.
        supernodes: how many simulated nodes there are.
        machine: `num_cpus` and `num_gpus` for Ray to share out over processes of clients.
        client: `num_cpus` and `num_gpus` of each of these.

    Raises:
        Exception: what the app raised; ValueError for a value that its configuration does not have.
    """
    loading = threading.Thread(target=_load, args=(app,))
    loading.start()
    import ray

    # Flower would start it later, and workers twice: once more with this process's PYTHONPATH.
    ray.init(**machine, include_dashboard=False, logging_level="WARNING", log_to_driver=True)
    loading.join()
    from flwr.app import Context, RecordDict
    from flwr.common.config import get_fused_config_from_dir, get_project_config
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    from pluralllm_app.federation.flower_compat import identify_process

    parts = get_project_config(app)["tool"]["flwr"]["app"]["components"]
    config = get_fused_config_from_dir(app, dict(run_config))
    identify_process()
    run = Run.create_empty(TaskIdentity.run_id)
    run.override_config = dict(run_config)
    run.primary_task_id, run.federation_id = TaskIdentity.task_id, NOOP_FEDERATION_ID
    _run_simulation(
        server_app_attr=parts["serverapp"],
        client_app_attr=parts["clientapp"],
        num_supernodes=supernodes,
        backend_config={"client_resources": dict(client)},
        app_dir=str(app),
        run=run,
        server_app_context=Context(run.run_id, 0, {}, RecordDict(), config),
        is_app=True,
        exit_event=EventType.FLWR_SIMULATION_RUN_LEAVE,
    )


def _load(app: Path) -> None:
    """Import what takes long, while Ray starts. What fails here fails again where it is used."""
    from flwr.common.config import get_project_config
    from flwr.supercore.object_ref import load_app

    import_module("flwr.simulation.run_simulation")
    for part in get_project_config(app)["tool"]["flwr"]["app"]["components"].values():
        load_app(part, ImportError, app)
