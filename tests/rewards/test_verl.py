"""`compute_score` as verl's reward managers call it, by keyword."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pluralllm_app import Predictor
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards import GroupReward, SeveralGroups, verl
from pluralllm_app.rewards.verl import compute_score
from tests.support.used import OFTEN, answers_of

GROUPS = ("North", "South")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Answers of two groups as tables, as `reward_kwargs` names them."""
    place = tmp_path_factory.mktemp("tables")
    for name in GROUPS:
        lines = ["question,option,share"]
        for question, shares in answers_of(name, OFTEN).items():
            lines += [f"{question},{option},{share}" for option, share in shares.items()]
        (place / f"{name}.csv").write_text("\n".join(lines))
    return [{"name": name, "answers": str(place / f"{name}.csv")} for name in GROUPS]


def called(run: Path, groups: Any, answer: str, extra_info: Any = None, **more: Any) -> Any:
    """What verl's naive reward manager gets, which calls by these four keywords and no others."""
    return compute_score(
        data_source="survey",
        solution_str=answer,
        ground_truth="c0",
        extra_info=extra_info or {"num_turns": None, "rollout_reward_scores": {}},
        **{"model": str(run), "groups": groups, "unread": -1.0, **more},
    )


def test_the_share_of_the_option(
    rewarding_run: Path, predictor: Predictor, tables: list[dict[str, str]]
) -> None:
    rewards = [GroupReward(predictor.group(each["answers"], name=each["name"])) for each in tables]
    for rule in ("mean", "min"):
        (expected,) = SeveralGroups(rewards, rule)(["?"], ["A"], question_id=["c0"])
        assert expected is not None
        found = called(rewarding_run, tables, " A", rule=rule)
        assert found == {"score": pytest.approx(expected), "read": 1.0}
    other = called(rewarding_run, tables, "A", {"question_id": "m0"})
    assert other != called(rewarding_run, tables, "A")
    turned = {"question_id": "c0", "options": ["No", "Yes"]}
    assert called(rewarding_run, tables, "B", turned) == called(rewarding_run, tables, "A")


def test_what_cannot_be_read_earns_what_one_says(
    rewarding_run: Path, tables: list[dict[str, str]]
) -> None:
    assert called(rewarding_run, tables, "Hm.") == {"score": -1.0, "read": 0.0}


def test_what_cannot_be_scored_is_refused(
    rewarding_run: Path, tables: list[dict[str, str]]
) -> None:
    with pytest.raises(AnswersError, match="none of the survey's"):
        called(rewarding_run, tables, "A", {"question_id": "c99"})
    with pytest.raises(AnswersError, match="history"):
        called(rewarding_run, tables, "A", rule="adaptive-alpha")
    with pytest.raises(AnswersError, match="'answer': give answers"):
        called(rewarding_run, [{"answer": "x.csv"}], "A")
    with pytest.raises(AnswersError, match="nothing is known of 'group 1'"):
        called(rewarding_run, [{}], "A")


def test_verl_scores_in_several_threads(
    rewarding_run: Path, tables: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They load the model once, and one after the other uses it."""
    loaded = []

    def load(*arguments: Any, **named: Any) -> Predictor:
        loaded.append(arguments)
        return Predictor.from_pretrained(*arguments, **named)

    monkeypatch.setattr(verl, "Predictor", SimpleNamespace(from_pretrained=load))
    verl._reward.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: called(rewarding_run, tables, "A"), range(40)))
    assert len(loaded) == 1
    assert all(each == found[0] for each in found)


def test_options_may_be_an_array(rewarding_run: Path, tables: list[dict[str, str]]) -> None:
    """As columns of Parquet files are."""
    turned = {"question_id": "c0", "options": np.array(["No", "Yes"], object)}
    assert called(rewarding_run, tables, "B", turned) == called(rewarding_run, tables, "A")


def test_verl_may_add_arguments(rewarding_run: Path, tables: list[dict[str, str]]) -> None:
    """With a reward model, its managers also give its address and its tokenizer."""
    found = called(rewarding_run, tables, "A", reward_router_address=None)
    assert found["read"] == 1.0
    first = list(inspect.signature(compute_score).parameters)[:4]
    assert first == ["data_source", "solution_str", "ground_truth", "extra_info"]
