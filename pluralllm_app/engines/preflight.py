"""What is checked before a run on this machine is started."""

from collections.abc import Sequence

from pluralllm_app.core.parts import need
from pluralllm_app.engines.resources import Resources, share_out, usable_cpus
from pluralllm_app.errors import FederationError, SettingsError, TooSmallError
from pluralllm_app.settings import Settings

Group = tuple[str, str, int, int]  # name, role, questions, and how many can be trained on


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
    from pluralllm_app.federation.noise import known_influence
    from pluralllm_app.federation.secure_settings import checked_threshold, scores_threshold
    from pluralllm_app.learning.registry import with_torch
    from pluralllm_app.preferences import split_questions
    from pluralllm_app.records.trackers import check_tracking
    from pluralllm_app.scoring.evaluation import check_groups
    from pluralllm_app.scoring.results import ROLES
    from pluralllm_app.survey.prepared import PreparedSurvey

    survey = PreparedSurvey.open(settings.path("survey"))
    survey.verify()
    groups = []
    for group in survey.groups:
        split = split_questions(survey.preferences(group.name), group.role, settings.split)
        groups.append((group.name, group.role, group.questions, len(split.train)))
    if settings.federation.noise == "respondents":
        need("privacy", "noise = respondents")
        for name, role, *_ in groups:
            if role == "train":
                known_influence(survey, name)
    check_tracking(settings.federation.tracker)
    try:
        check_groups(groups, settings)
    except FederationError as error:
        if changes := fitting_settings(groups, settings):
            words = " ".join(f"{key}={value}" for key, value in changes.items())
            raise TooSmallError(str(error), ["-c", words]) from error
        raise
    if settings.federation.privacy == "secure-sum":
        checked_threshold(settings, sum(role == "train" for _, role, *_ in groups))
    if settings.federation.scores == "mean":
        for role in ROLES:
            if count := sum(of == role for _, of, *_ in groups):
                scores_threshold(role, count)
    device = settings.training.device
    gpus = 0
    if device == "cuda" or (device != "cpu" and with_torch(settings)):
        import torch

        gpus = torch.cuda.device_count()
    if device == "cuda" and not gpus:
        raise SettingsError("device = 'cuda', but torch sees no GPU here: set device = 'auto'")
    expected, threads = settings.federation.expected_nodes, settings.training.client_threads
    if expected not in (0, len(groups)):
        raise SettingsError(
            f"expected-nodes = {expected}, but a simulation of this survey has {len(groups)} "
            "nodes: leave it 0"
        )
    return share_out(len(groups), threads, actors, usable_cpus(), gpus)


def fitting_settings(groups: Sequence[Group], settings: Settings) -> dict[str, int]:
    """Changes of settings with which a small survey can be trained on; none if it never can."""
    pools = {
        role: [(questions, pool) for _, of, questions, pool in groups if of == role]
        for role in ("train", "evaluation")
    }
    trainable = min((pool for _, pool in pools["train"]), default=0)
    # Some questions must be left for an evaluation group to be scored on.
    scorable = min((min(pool, count - 1) for count, pool in pools["evaluation"]), default=10**9)
    if trainable < 2 or scorable < 1:
        return {}
    changes = {}
    if settings.evaluation.evaluation_context > (most := min(trainable, scorable)):
        changes["evaluation-context"] = max(1, most // 2)
    if settings.training.context_min + settings.training.target_min > trainable:
        changes["context-min"] = changes["target-min"] = max(1, trainable // 3)
    if settings.federation.min_train_groups > len(pools["train"]):
        changes["min-train-groups"] = len(pools["train"])
    return changes
