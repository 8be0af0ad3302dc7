"""What a comparison is: methods under several seeds, all scored on the same contexts.

A comparison is a directory: comparison.json says of what, and cells/<method>/seed-<n>/ is a run
directory each. A cell depends on the settings and its seed alone, so that a comparison goes on
where it was left, and more seeds or methods can be added later.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pluralllm_app import __version__
from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.core.locks import held
from pluralllm_app.errors import UserError
from pluralllm_app.experiments.methods import METHODS, same_methods
from pluralllm_app.records.reader import COMPARISON, read_comparison, read_run
from pluralllm_app.records.schema import (
    ComparedMethod,
    ComparedSurvey,
    ComparisonInfo,
    Identity,
    encode_file,
)
from pluralllm_app.settings import NO_RESULT, Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

Config = Mapping[str, Scalar]


@dataclass(frozen=True, eq=False)
class Cell:
    """One method under one seed, run into a directory of its own."""

    method: str
    seed: int
    config: dict[str, Scalar]

    @property
    def path(self) -> Path:
        return Path(str(self.config["out"]))

    @property
    def finished(self) -> bool:
        """Whether it has run to its end."""
        run = read_run(self.path)
        return run is not None and run.status == "completed"


def open_comparison(
    out: Path, config: Config, survey: PreparedSurvey, seeds: int, methods: Sequence[str]
) -> list[Cell]:
    """Begin or continue the comparison in `out`; returns the cells asked for, longest first.

    Under seed s + i, with s the settings' own, contexts and held-out questions are drawn from
    evaluation-seed + i, for all methods alike.

    Raises:
        UserError: `out` holds a comparison of other groups, answers, settings or another version
            of the app.
    """
    settings = Settings.from_config(config)
    same = same_methods(settings, sum(group.role == "train" for group in survey.groups))
    identity = Identity(
        version=__version__,
        survey=_digest(survey),
        settings={key: value for key, value in config.items() if key not in NO_RESULT},
    )
    found = read_comparison(out)
    if found:
        _check_same(out, found.identity, identity)
    asked_seeds = range(settings.federation.seed, settings.federation.seed + seeds)
    asked = {*methods, *(same[name] for name in methods if name in same)}
    known = {*(found.methods if found else ()), *asked}
    info = ComparisonInfo(
        identity=identity,
        survey=ComparedSurvey(
            name=survey.name,
            fingerprint=survey.fingerprint,
            path=str(survey.path),
            groups=len(survey.groups),
        ),
        settings=dict(config),
        seeds=sorted({*(found.seeds if found else ()), *asked_seeds}),
        methods={
            name: ComparedMethod(
                title=spec.title, pools_answers=spec.pools_answers, same_as=same.get(name)
            )
            for name, spec in METHODS.items()
            if name in known
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / COMPARISON, encode_file(info))
    to_run = [spec for name, spec in METHODS.items() if name in asked and name not in same]
    to_run.sort(key=lambda spec: not spec.until_converged)  # they take by far the longest
    return [_cell(out, config, spec.name, seed) for seed in asked_seeds for spec in to_run]


def _cell(out: Path, config: Config, method: str, seed: int) -> Cell:
    of_cell: Config = {
        "seed": seed,
        "evaluation-seed": int(config["evaluation-seed"]) + seed - int(config["seed"]),
        "out": str(out / "cells" / method / f"seed-{seed}"),
    }
    return Cell(method, seed, {**config, **of_cell})


def _digest(survey: PreparedSurvey) -> str:
    """Hash of questions, embeddings, and every group's name, role and answers."""
    digest = hashlib.sha256(survey.fingerprint.encode())
    for group in survey.groups:
        digest.update(json.dumps([group.name, group.role]).encode())
        digest.update((survey.path / group.file).read_bytes())
    return digest.hexdigest()[:16]


def _check_same(out: Path, found: Identity, identity: Identity) -> None:
    remedy = "To compare anew, give another --out, or remove that directory"
    if found.version != identity.version:
        raise UserError(
            f"the runs in {out} are of version {found.version} of this app, and this is "
            f"{identity.version}: their scores may differ for that reason alone. {remedy}"
        )
    if found.survey != identity.survey:
        raise UserError(
            f"the runs in {out} are of another survey, or of this one before it was prepared anew "
            "with other answers, groups, roles or embeddings: scores on different answers do not "
            f"compare. {remedy}"
        )
    settings, settings_now = found.settings, identity.settings
    for key in sorted({*settings, *settings_now} - {*NO_RESULT}):
        if settings.get(key) != settings_now.get(key):
            raise UserError(
                f"the runs in {out} have {key} = {settings.get(key)}, and you ask for {key} = "
                f"{settings_now.get(key)}: runs with different settings do not compare. To go on "
                f"with it, take its settings: -c '{key}={settings.get(key)}'. {remedy}"
            )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other comparisons out of the directory `out` for the block.

    Raises:
        UserError: another one is at work there, it holds something else, or it cannot be written.
    """
    try:
        found = {file.name for file in out.iterdir()} if out.exists() else set()
        if found and not found & {COMPARISON, ".lock"}:
            raise UserError(f"{out} is not empty and holds no comparison: give another --out")
        out.mkdir(parents=True, exist_ok=True)
        lock = held(out / ".lock", f"another comparison is at work in {out}: wait for it")
    except OSError as error:
        raise UserError(
            f"cannot write the comparison {out}: {error.strerror}: give another --out"
        ) from error
    with lock:
        yield
