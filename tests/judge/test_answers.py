"""From answers in several orders to shares, and what is kept of them."""

import json
import math
from pathlib import Path

import pytest

from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import Answer, distributions
from pluralllm_app.judge.kept import KeptAnswers, key_of, open_answers
from pluralllm_app.judge.plan import Place, Prompt
from pluralllm_app.use.questions import Question

PROMPT = Prompt("Is it?", Question("Is it?", ["Yes", "No"]))


def test_orders_are_turned_back_and_averaged() -> None:
    index = 7  # of three options
    answers = {
        Place(index, None, 0): Answer((0.5, 0.25, 0.0), 1),  # 2/3 1/3 0
        Place(index, None, 1): Answer((0.0, 0.0, 0.5), 1),  # C is the first option
        Place(index, None, 2): Answer((1.0, 0.0, 0.0), 1),  # A is the last
    }
    found = distributions(answers)[None]
    assert found.shares[index].tolist() == pytest.approx([5 / 9, 1 / 9, 1 / 3])
    assert found.named == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert 0 < found.moved < math.sqrt(math.log(2))
    assert found.silent == pytest.approx((1 + 2 + 2) / 9)


def test_what_a_letter_has_whatever_stands_there_is_the_same_for_all() -> None:
    always_a = {Place(0, None, turn): Answer((0.9, 0.0), 1) for turn in range(2)}
    assert distributions(always_a)[None].shares[0].tolist() == [0.5, 0.5]


def test_a_question_with_an_order_that_names_nothing_has_no_shares() -> None:
    answers = {
        Place(0, "North", 0): Answer((3, 7), 10),
        Place(0, "North", 1): Answer((0, 0), 10),
        Place(1, "North", 0): Answer((1, 1), 10),
        Place(1, "North", 1): Answer((1, 1), 10),
    }
    found = distributions(answers)["North"]
    assert list(found.shares) == [1]
    assert found.named == pytest.approx((1 + 0 + 0.2 + 0.2) / 4)


@pytest.mark.parametrize(
    ("named", "total"),
    [([0.5], 1), ([math.nan, 0.5], 1), ([-0.1, 0.5], 1), ([0.7, 0.7], 1), ([0, 0], 0)],
)
def test_numbers_that_are_no_probabilities_are_refused(named: list[float], total: float) -> None:
    with pytest.raises(ValueError, match=r"numbers for|no probabilities|sum to"):
        Answer.checked(named, total, 2)


def test_answers_are_kept_as_they_come_and_found_again(cache: Path) -> None:
    key = key_of("a model", "log-probabilities", PROMPT)
    with open_answers(cache) as kept:
        assert kept.get(key, 2) is None
        kept.add(key, Answer((0.25, 0.5), 1.0))
        assert len(cache.read_bytes().splitlines()) == 2  # nothing waits for the end
    with open_answers(cache) as kept:
        assert kept.get(key, 2) == Answer((0.25, 0.5), 1.0)
    assert b"Is it" not in cache.read_bytes()
    others = [("b", "log-probabilities"), ("a model", "10 samples")]
    assert key not in {key_of(model, kind, PROMPT) for model, kind in others}


def test_a_line_that_was_cut_off_is_forgotten(cache: Path) -> None:
    with open_answers(cache) as kept:
        kept.add("one", Answer((1.0, 0.0), 1.0))
        kept.add("two", Answer((0.0, 1.0), 1.0))
    for cut in range(1, 6):
        cache.write_bytes(cache.read_bytes()[:-cut])
        with open_answers(cache) as kept:
            assert kept.get("one", 2) == Answer((1.0, 0.0), 1.0)
            assert kept.get("two", 2) is None
            kept.add("two", Answer((0.0, 1.0), 1.0))
    with open_answers(cache) as kept:
        assert kept.get("two", 2) == Answer((0.0, 1.0), 1.0)


def test_other_files_are_refused_and_left_as_they_are(cache: Path) -> None:
    cache.parent.mkdir()
    for content in (b"question,option\n", b"x", b"[1]\n", b'{"a": 1}\n', b"{\n", b"\x00" * 9):
        cache.write_bytes(content)
        with pytest.raises(UserError, match=r"remove it, or give another --cache"):
            _open(cache)
        assert cache.read_bytes() == content
    with open_answers(cache.with_name("good")) as kept:
        kept.add("one", Answer((1.0, 0.0), 1.0))
        with pytest.raises(UserError, match="another command is using"):
            _open(kept.path)


@pytest.mark.parametrize(
    "value", [None, 3, [[1.0]], [[1.0, "x"], 1], [[2.0, 0.0], 1], [[10**400, 0], 1]]
)
def test_a_damaged_answer_is_refused(cache: Path, value: object) -> None:
    with open_answers(cache):
        pass
    with cache.open("a") as stream:
        stream.write(json.dumps({"one": value}) + "\n")
    with open_answers(cache) as kept, pytest.raises(UserError, match="is damaged"):
        kept.get("one", 2)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*answers.* give another --cache"):
        _open(tmp_path / "file" / "answers")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*directory"):
        _open(tmp_path / "directory")


def _open(path: Path) -> KeptAnswers:
    with open_answers(path) as kept:
        return kept
