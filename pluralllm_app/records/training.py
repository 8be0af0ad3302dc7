"""What a run tells the card of a predictor that it saves."""

import numpy as np

from pluralllm_app import __version__
from pluralllm_app.predictors.card import RoleScores, Training
from pluralllm_app.records.schema import RoundEntry, RunInfo
from pluralllm_app.scoring.results import EvaluationResult, Role

TOLD = ("predictor", "prior", "strategy", "privacy", "rounds", "local-steps")  # of the settings
NOISE = ("noise", "epsilon", "delta")  # of those of a run with noise


def training_of(run: RunInfo, scored: RoundEntry) -> Training:
    """How the predictor that a round's evaluation scored was made, and how it did."""
    roster = run.roster or ()
    groups = {
        role: [entry.group for entry in roster if entry.role == role]
        for role in ("train", "evaluation")
    }
    found = scored.evaluation
    told = (*TOLD, *NOISE) if run.noise else TOLD
    return Training(
        version=__version__,
        date=run.started,
        method=run.method,
        settings={key: run.settings[key] for key in told if key in run.settings},
        seed=run.seed,
        round=scored.round,
        context=int(run.settings["evaluation-context"]),
        train_groups=groups["train"],
        evaluation_groups=groups["evaluation"],
        train=_scores(found, "train") if found else None,
        evaluation=_scores(found, "evaluation") if found else None,
        fingerprint=run.survey.fingerprint if run.survey else None,
    )


def _scores(found: EvaluationResult, role: Role) -> RoleScores | None:
    summary = found.roles[role]
    if summary is None:
        return None
    covered = [group.coverage for group in found.groups.values() if group.role == role]
    known = [each for each in covered if each is not None]
    return RoleScores(
        groups=summary.groups,
        mean=summary.mean,
        worst=summary.worst,
        worst_group=summary.worst_group,
        fairness_index=summary.fi,
        coverage=np.mean(known, axis=0).tolist() if known else None,
    )
