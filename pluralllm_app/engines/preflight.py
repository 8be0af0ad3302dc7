"""What is checked before a run on this machine is started."""

from pluralllm_app.engines.resources import Resources, share_out, usable_cpus
from pluralllm_app.errors import SettingsError
from pluralllm_app.settings import Settings


def preflight(settings: Settings, actors: int | None = None) -> Resources:
    """Check survey, groups, tracker and machine.

    Args:
        settings: of the run.
        actors: how many processes are asked for; None: as many as fit.

    Returns:
        What a simulation of the survey runs on.

    Raises:
        UserError: the run would fail.
    """
    # Here and not above, so that `--help` and a mistyped setting answer at once.
    import torch

    from pluralllm_app.federation.roster import check_groups
    from pluralllm_app.preferences import split_questions
    from pluralllm_app.records.trackers import check_tracking
    from pluralllm_app.survey.prepared import PreparedSurvey

    survey = PreparedSurvey.open(settings.path("survey"))
    survey.verify()
    groups = []
    for group in survey.groups:
        split = split_questions(survey.preferences(group.name), group.role, settings.split)
        groups.append((group.name, group.role, group.questions, len(split.train)))
    check_tracking(settings.federation.tracker)
    check_groups(groups, settings)
    device = settings.training.device
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if device == "cuda" and not gpus:
        raise SettingsError("device = 'cuda', but torch sees no GPU here: set device = 'auto'")
    expected, threads = settings.federation.expected_nodes, settings.training.client_threads
    if expected not in (0, len(groups)):
        raise SettingsError(
            f"expected-nodes = {expected}, but a simulation of this survey has {len(groups)} "
            "nodes: leave it 0"
        )
    return share_out(len(groups), threads, actors, usable_cpus(), gpus)
