"""With noise for respondents, all that a train group says follows from noised answers."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flwr.app import Message, MetricRecord

from pluralllm_app import client_app
from pluralllm_app.engines.preflight import preflight
from pluralllm_app.errors import FederationError, RefusedError, SettingsError
from pluralllm_app.federation.ledger import Draw, Ledger
from pluralllm_app.federation.node_files import prepare_node
from pluralllm_app.federation.noise import usable_answers
from pluralllm_app.federation.policy import POLICY, Policy
from pluralllm_app.federation.policy_text import shown
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning.registry import caution, check_plain
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.accounting import epsilon_of, rho_of
from pluralllm_app.privacy.kept import DIRECTORY
from pluralllm_app.privacy.respondents import Mechanism
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import write_site
from tests.conftest import ROOT, TRAIN, tiny_config
from tests.support.local_grid import LocalGrid
from tests.support.local_runs import GROUPS, Config, read, run
from tests.support.noised import FACTORS, NOISE, REFINED, survey
from tests.support.secure_runs import SECURE

__all__ = ["survey"]


@pytest.fixture(scope="module")
def other(survey: PreparedSurvey, tmp_path_factory: pytest.TempPathFactory) -> PreparedSurvey:
    """The same, but the train groups have answered the opposite."""
    copy = tmp_path_factory.mktemp("other") / "survey"
    shutil.copytree(survey.path, copy)
    for name in TRAIN:
        file = copy / survey.group(name).file
        table = pq.read_table(file)
        turned = [shares[::-1] for shares in table["shares"].to_pylist()]
        pq.write_table(table.set_column(1, "shares", pa.array(turned)), file)
    return PreparedSurvey.open(copy)


def without_clock(message: Message) -> dict[str, Any]:
    """What a reply says, but for seconds."""
    said: dict[str, Any] = {}
    for name, record in message.content.items():
        values = dict(record)
        if isinstance(record, MetricRecord):
            values.pop("seconds", None)
        said[name] = {key: getattr(value, "data", value) for key, value in values.items()}
    return said


def said_in(config: Config) -> list[tuple[int, dict[str, Any]]]:
    """All that train groups answer in a run, with their numbers."""
    heard = []

    def reply(partition: int, message: Message) -> Message:
        if GROUPS[partition] in TRAIN:
            heard.append((partition, without_clock(message)))
        return message

    run(config, reply=reply)
    return heard


@pytest.mark.parametrize(
    "learner",
    [
        pytest.param({}, id="gpo", marks=pytest.mark.slow),
        pytest.param(FACTORS, id="factors"),
        pytest.param(REFINED, id="refined", marks=pytest.mark.slow),
    ],
)
def test_all_that_train_groups_say_follows_from_noised_answers(
    survey: PreparedSurvey,
    other: PreparedSurvey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    learner: Config,
) -> None:
    """True answers are opposite, noised ones happen to be the same: so are all messages."""

    def drawn(mechanism: Mechanism, own: PreferenceSet) -> np.ndarray:
        rng = np.random.default_rng(len(own.group))
        return rng.integers(0, int(mechanism.grid.steps.max()), len(own.shares))

    monkeypatch.setattr(Mechanism, "draw", drawn)
    first, second = (
        said_in(tiny_config(each, tmp_path / name) | learner | NOISE)
        for each, name in ((survey, "one"), (other, "two"))
    )
    assert first == second
    kinds = {name for _, said in first for name in said}
    assert kinds == {"description", "arrays", "metrics", "evaluation"}
    monkeypatch.undo()
    plain = said_in(tiny_config(other, tmp_path / "three") | learner)
    assert plain != first


def answers(
    survey: PreparedSurvey, settings: Settings, place: Path, name: str = "Alder"
) -> PreferenceSet:
    """What a run may use of a group on a node with a directory of its own."""
    true = survey.preferences(name)
    node = place / "node"
    node.mkdir(exist_ok=True, parents=True)
    return usable_answers(survey, survey.group(name), true, place / "memory", node, settings)


@pytest.fixture
def noisy(make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings of a run with noise of an epsilon."""
    return lambda epsilon=1.0: make_settings(NOISE | {"epsilon": epsilon})


def test_noise_is_drawn_once_and_counted_once(
    survey: PreparedSurvey, tmp_path: Path, noisy: Callable[..., Settings]
) -> None:
    first, again = (answers(survey, noisy(), tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.shares, again.shares)
    assert (first.shares != survey.preferences("Alder").shares).any()
    (draw,) = Ledger.read(tmp_path / "node").noise.values()
    assert draw == Draw("respondents", rho_of(1.0, 1e-6), 1.0, 1e-6)
    (file,) = (tmp_path / "memory" / DIRECTORY).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["the file is lost", "another epsilon", "other answers"])
def test_another_draw_adds_to_the_ledger(
    survey: PreparedSurvey,
    other: PreparedSurvey,
    tmp_path: Path,
    noisy: Callable[..., Settings],
    change: str,
) -> None:
    first = answers(survey, noisy(), tmp_path)
    if change == "the file is lost":
        shutil.rmtree(tmp_path / "memory")
    second = answers(
        other if change == "other answers" else survey,
        noisy(0.5 if change == "another epsilon" else 1.0),
        tmp_path,
    )
    assert (first.shares != second.shares).any()
    spent = Ledger.read(tmp_path / "node").noise.values()
    assert len(spent) == 2
    second_epsilon = 0.5 if change == "another epsilon" else 1.0
    assert sum(draw.rho for draw in spent) == rho_of(1.0, 1e-6) + rho_of(second_epsilon, 1e-6)


def test_noise_that_a_lost_ledger_had_counted_is_counted_again(
    survey: PreparedSurvey, tmp_path: Path, noisy: Callable[..., Settings]
) -> None:
    first = answers(survey, noisy(), tmp_path)
    before = Ledger.read(tmp_path / "node")
    (tmp_path / "node" / "ledger.json").unlink()
    np.testing.assert_array_equal(answers(survey, noisy(), tmp_path).shares, first.shares)
    assert Ledger.read(tmp_path / "node") == before


def test_what_was_not_kept_was_counted(
    survey: PreparedSurvey,
    tmp_path: Path,
    noisy: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that dies while it draws has spent it."""

    def die(mechanism: Mechanism, own: PreferenceSet) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mechanism, "draw", die)
        with pytest.raises(KeyboardInterrupt):
            answers(survey, noisy(), tmp_path)
    answers(survey, noisy(), tmp_path)
    assert len(Ledger.read(tmp_path / "node").noise) == 2


def test_damaged_noised_answers_are_refused_and_not_drawn_anew(
    survey: PreparedSurvey, tmp_path: Path, noisy: Callable[..., Settings]
) -> None:
    answers(survey, noisy(), tmp_path)
    (file,) = (tmp_path / "memory" / DIRECTORY).iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(FederationError, match="answers with noise, is damaged: give it back"):
        answers(survey, noisy(), tmp_path)
    assert len(Ledger.read(tmp_path / "node").noise) == 1


def test_a_policy_limits_epsilon_over_all_draws(
    survey: PreparedSurvey, tmp_path: Path, noisy: Callable[..., Settings]
) -> None:
    node = tmp_path / "node"
    node.mkdir()
    (node / POLICY).write_text("most-epsilon = 1")
    answers(survey, noisy(1.0), tmp_path)
    answers(survey, noisy(1.0), tmp_path)  # nothing is drawn
    before = Ledger.read(node)
    with pytest.raises(RefusedError) as refused:
        answers(survey, noisy(0.5), tmp_path)
    total = epsilon_of(rho_of(1.0, 1e-6) + rho_of(0.5, 1e-6), 1e-6)
    assert (
        f"has most-epsilon = 1.0, and noise that was drawn so far and that of this run cost "
        f"epsilon = {total:.4g} at delta = 1e-06" in str(refused.value)
    )
    assert Ledger.read(node) == before
    shutil.rmtree(tmp_path / "memory")
    with pytest.raises(RefusedError, match="has most-epsilon = 1"):
        answers(survey, noisy(1.0), tmp_path)
    assert dict((key, value) for key, value, _ in shown(node))["most-epsilon"] == "1.0 (1 so far)"


def test_a_node_that_limits_epsilon_takes_part_in_nothing_without_noise(
    survey: PreparedSurvey, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    policy = Policy(most_epsilon=2.0)
    policy.check(make_settings(NOISE))
    with pytest.raises(RefusedError, match="run with noise = respondents and epsilon = 2 or less"):
        policy.check(make_settings())
    groups = make_settings(
        SECURE | {"noise": "groups", "epsilon": 1.0, "update-norm": 1.0, "weighting": "uniform"}
    )
    with pytest.raises(RefusedError, match=r"there are no \[peers\]: ask its owner to pin"):
        policy.check(groups)
    replace(policy, peers={"Birch": "SHA256:" + "a" * 43}).check(groups)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / POLICY).write_text("most-epsilon = 2")
    with pytest.raises(RefusedError, match="its group is for evaluation, which is scored on its"):
        answers(survey, make_settings(NOISE), tmp_path, name="Dogwood")


@pytest.mark.slow
def test_nodes_draw_once_for_all_runs_and_their_owner_limits_the_cost(
    survey: PreparedSurvey, tmp_path: Path
) -> None:
    """Three nodes with sites of their own; Alder's owner allows an epsilon of 1."""
    nodes = {name: tmp_path / name for name in TRAIN}
    for name, node in nodes.items():
        write_site(survey, name, node / "site")
        prepare_node(node)
    (nodes["Alder"] / POLICY).write_text("most-epsilon = 1")

    def trained(out: str, changes: Config) -> list[set[str]]:
        config = tiny_config(survey, tmp_path / out) | {"survey": "", "expected-nodes": 3} | changes
        grid = LocalGrid(client_app.app, config, nodes=3)
        for context, node in zip(grid.contexts.values(), nodes.values(), strict=True):
            context.node_config = {"site": str(node / "site"), "node": str(node)}
        run_federation(grid, Settings.from_config(config), config)
        _, rounds = read(config)
        return [set(entry["train"]["groups"]) for entry in rounds if entry["train"]]

    assert trained("first", NOISE) == [{*TRAIN}] * 2
    assert trained("second", NOISE | {"seed": 1}) == [{*TRAIN}] * 2
    assert [len(Ledger.read(node).noise) for node in nodes.values()] == [1, 1, 1]
    for changes in ({}, NOISE | {"epsilon": 0.5}):
        with pytest.raises(FederationError, match=r"its policy.toml has most-epsilon = 1.0, and"):
            trained(f"refused {changes}", changes)


def test_a_group_of_whom_too_little_is_known_is_refused_by_name(config: Config) -> None:
    with pytest.raises(FederationError, match=r"of group 'Alder' does not say how much one"):
        run(config | NOISE)


def test_a_simulation_is_refused_before_it_starts(
    survey: PreparedSurvey, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    preflight(Settings.from_config(tiny_config(survey, tmp_path / "run") | NOISE))
    with pytest.raises(FederationError, match=r"group 'Alder' does not say how much one"):
        preflight(make_settings(NOISE))


def test_nothing_else_in_a_node_reads_answers() -> None:
    """So that all which is said above holds for whatever a node is asked later on, too."""
    package = ROOT / "pluralllm_app"
    files = [package / "client_app.py", *(package / "federation").glob("*.py")]
    reading = {file.name for file in files if "survey.preferences(" in file.read_text("utf-8")}
    assert reading == {"partition.py"}


def test_a_run_says_what_it_spends(survey: PreparedSurvey, tmp_path: Path) -> None:
    """And takes noise in secure sums just as well."""
    config = tiny_config(survey, tmp_path / "run") | FACTORS | NOISE | {"privacy": "secure-sum"}
    record, rounds = run(config | {"min-train-groups": 3})
    assert record["noise"] == {
        "unit": "what one respondent of a train group answered",
        "epsilon": 1.0,
        "delta": 1e-6,
    }
    assert [entry["train"]["epsilon"] for entry in rounds[1:]] == [1.0, 1.0]
    card = Path(str(config["out"]), "model", "README.md").read_text("utf-8")
    assert "noise = respondents, epsilon = 1.0, delta = 1e-06" in card
    assert "epsilon = 1 and delta = 1e-06, over the whole run" in caution(
        Settings.from_config(config)
    )


def test_noise_does_not_change_a_group_that_never_trains(
    survey: PreparedSurvey, tmp_path: Path, noisy: Callable[..., Settings]
) -> None:
    own = answers(survey, noisy(), tmp_path, name="Dogwood")
    np.testing.assert_array_equal(own.shares, survey.preferences("Dogwood").shares)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise": "respondents"}, "epsilon = 0 does not go with noise = 'respondents'"),
        ({"epsilon": 1.0}, "epsilon = 1 does not go with noise = 'none'"),
        ({"noise": "respondents", "epsilon": 1.0, "delta": 0.0}, "delta = 0.0 must be above 0"),
        (
            {"noise": "respondents", "epsilon": 1.0, "delta": 0.01},
            "delta = 0.01 must be above 0 and at most 0.001",
        ),
        ({"noise": "respondents", "epsilon": -1.0}, "epsilon = -1.0 must be at least 0"),
        ({"noise": "respondents", "epsilon": 1e6}, "epsilon = 1000000.0 must be .* at most 1000"),
    ],
)
def test_settings_that_promise_nothing_are_refused(
    make_settings: Callable[..., Settings], changed: dict[str, Scalar], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings(changed)


def test_what_pools_answers_has_no_noise(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="here methods pool the answers of all groups"):
        check_plain(make_settings(NOISE))
