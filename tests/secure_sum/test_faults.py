"""Groups that are killed, late, or send something odd; and memories that are damaged."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.errors import FederationError, UserError
from pluralllm_app.secure_sum import keys
from pluralllm_app.secure_sum import memory as memories
from pluralllm_app.secure_sum.checks import RefusedSumError
from pluralllm_app.secure_sum.memory import Memory, MemoryFile
from pluralllm_app.secure_sum.messages import (
    Advertisement,
    Agreement,
    Dealt,
    Invitation,
    Opening,
    OpenRequest,
    read,
    write,
)
from pluralllm_app.secure_sum.server import ServerSum, check_advertisement, check_dealt
from tests.support.secure_sums import LENGTH, Cohort, meant, plain


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path, 5)


def test_a_late_vector_stays_masked(cohort: Cohort) -> None:
    """With all that the server gets, it is not the late group's vector, nor a known mask off it."""
    ready, vectors = cohort.ready(), cohort.vectors()
    whole = ServerSum(ready, 1, meant(1), LENGTH)
    arrived = {
        name: cohort.half(name).mask(cohort.ask(ready, 1, name), meant(1), vectors[name])
        for name in cohort.names
    }
    for name in "abde":
        whole.add(name, arrived[name])
    openings = cohort.open(whole, cohort.agree(whole))
    total = whole.total(openings)
    assert (total == plain(vectors, "c")).all()
    assert all("c" not in each.seeds for each in openings.values())
    # Even with c's mask key, which the server can put together now, b_c is left on its vector.
    private = whole._mask_key("c", openings)
    unmasked = arrived["c"].copy()
    for each in ready.roll.advertisements:
        if each.group != "c":
            names = ("c", each.group)
            shared = keys.pair_mask(private, each.masks[0], names, whole.context, LENGTH)
            unmasked += -shared if each.group > "c" else shared
    left = unmasked - vectors["c"]
    seed = cohort.files["c"].read().masked
    assert seed is not None
    assert (left == keys.self_mask(seed.seed, whole.context, "c", LENGTH)).all()
    assert (left != 0).all()


def test_a_group_that_is_started_again_does_nothing_twice(cohort: Cohort) -> None:
    """It was killed after it had used a sum up, and before its reply left."""
    ready, vectors = cohort.ready(), cohort.vectors()
    cohort.half("a").mask(cohort.ask(ready, 1, "a"), meant(1), vectors["a"])
    with pytest.raises(RefusedSumError, match="used up"):
        cohort.half("a").mask(cohort.ask(ready, 1, "a"), meant(1), vectors["a"])
    assert (cohort.sum(ready, 2, vectors) == plain(vectors)).all()


def test_a_group_that_was_lost_is_there_in_the_next_sum(cohort: Cohort) -> None:
    ready, vectors = cohort.ready(), cohort.vectors()
    cohort.sum(ready, 1, vectors, masked="b")
    assert (cohort.sum(ready, 2, vectors) == plain(vectors)).all()


def test_secrets_are_gone_when_they_are_used_up(cohort: Cohort) -> None:
    ready, vectors = cohort.ready(), cohort.vectors()
    first = cohort.files["a"].read().setup
    assert first is not None
    cohort.mask(ready, 1, vectors)
    cohort.sum(ready, 2, vectors)
    memory = cohort.files["a"].read()
    assert memory.masked is None
    assert memory.setup is None
    content = cohort.files["a"].path.read_bytes()
    for each in first.secrets.values():
        assert each.own is not None
        for secret in (each.mask, each.seed, each.own.mask, each.own.seed, each.own.piece):
            assert secret not in content
    assert first.encryption not in content


def test_secrets_that_were_not_used_for_long_are_forgotten(cohort: Cohort) -> None:
    """The run has ended, or its server died: what was done is kept, and so not done again."""
    ready, vectors = cohort.ready(count=3), cohort.vectors()
    cohort.sum(ready, 1, vectors)
    cohort.mask(ready, 2, vectors)
    file = cohort.files["a"]
    file.forget_after(3600)
    assert file.read().masked is not None
    os.utime(file.path, (0, 0))
    file.forget_after(3600)
    assert file.read() == Memory(last=3, opened={1: tuple("abcde")})


def test_nobody_else_can_read_the_secrets(cohort: Cohort) -> None:
    cohort.ready()
    file = cohort.files["a"].path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_damaged_memory_is_told(cohort: Cohort) -> None:
    cohort.ready()
    cohort.files["a"].path.write_bytes(b"\x93 no memory")
    with pytest.raises(FederationError, match=r"cannot read sums, its secrets.*An older copy"):
        cohort.half("a").weights(1)


def test_two_messages_at_once_are_not_both_answered(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor two of different runs, one of which could make the other's memory forget."""
    monkeypatch.setattr(memories, "_WAIT_SECONDS", 0.0)
    ready, file = cohort.ready(), cohort.files["a"]
    other = MemoryFile(file.path.parent.parent / "another run" / "sums")
    with other.alone(), pytest.raises(UserError, match="answers another message"):
        cohort.half("a").mask(cohort.ask(ready, 1, "a"), meant(1), cohort.vectors()["a"])


# ---- What a group may send ----


def test_a_vector_has_the_length_of_the_sum_and_comes_once(cohort: Cohort) -> None:
    whole = ServerSum(cohort.ready(), 1, meant(1), LENGTH)
    for odd in (np.zeros(4, np.uint64), np.zeros((1, 5), np.uint64), np.zeros(5)):
        with pytest.raises(ValueError, match="and not of 5 words"):
            whole.add("a", odd)
    whole.add("a", np.zeros(5, np.uint64))
    with pytest.raises(ValueError, match="has sent a masked vector before"):
        whole.add("a", np.zeros(5, np.uint64))


def test_a_group_advertises_its_own_keys(cohort: Cohort) -> None:
    invitation = cohort.invitation()
    own = cohort.half("a").advertise(invitation, 3)
    check_advertisement(own, "a", invitation, own.identity, set())
    odd: list[tuple[Advertisement, str, str]] = [
        (own, "b", "keys of another group"),
        (replace(own, masks=own.masks[:1]), "a", "for another number of sums"),
        (replace(own, masks=(bytes(32), own.masks[1])), "a", "a key that gives no secret"),
        (replace(own, encryption=bytes(32)), "a", "a key that gives no secret"),
        (replace(own, weight=4), "a", "has not signed"),
        (replace(own, identity=b"no key"), "a", "has not signed"),
        (replace(own, signature=b""), "a", "has not signed"),
        (replace(own, masks=(own.masks[0],) * 2), "a", "a key twice"),
        (replace(own, encryption=own.masks[0]), "a", "a key twice"),
    ]
    for advertisement, group, error in odd:
        with pytest.raises(ValueError, match=error):
            check_advertisement(advertisement, group, invitation, None, set())
    with pytest.raises(ValueError, match="is not the registered one"):
        check_advertisement(own, "a", invitation, b"another", set())
    with pytest.raises(ValueError, match="a key of another group"):
        check_advertisement(own, "a", invitation, None, {own.masks[1]})


def test_a_group_deals_to_all_others(cohort: Cohort) -> None:
    dealt, invitation = cohort.ready().dealt["a"], cohort.invitation()
    (first, second) = dealt.boxes
    for boxes, error in (
        ((first,), "another number of sums"),
        ((first, second[:-1]), "to other groups"),
        ((first, (b"for itself", *second[1:])), "to other groups"),
        ((first, (*second[:-1], b"")), "to other groups"),
    ):
        with pytest.raises(ValueError, match=error):
            check_dealt(Dealt(boxes), "a", invitation)


def test_what_opens_a_sum_is_looked_at(cohort: Cohort) -> None:
    ready = cohort.ready()
    whole = cohort.mask(ready, 1, cohort.vectors(), lost="c")
    agreements = cohort.agree(whole)
    openings = cohort.open(whole, agreements)
    with pytest.raises(ValueError, match="has not signed who is left"):
        whole.check_agreement("a", agreements["b"])
    own = openings["a"]
    for odd, error in (
        (replace(own, lost={}), "for other groups"),
        (replace(own, seeds={**own.seeds, "c": own.seeds["a"]}), "for other groups"),
        (replace(own, pieces={"a": bytes(31)}), "pieces of other groups"),
        (replace(own, lost=openings["b"].lost), "with shares of another group"),
    ):
        with pytest.raises(ValueError, match=error):
            whole.check_opening("a", odd)


def wrong(share: bytes) -> bytes:
    """A share of another secret for the same place."""
    return share[:-1] + bytes([share[-1] ^ 1])


def test_a_wrong_share_of_a_lost_group_is_found_out(cohort: Cohort) -> None:
    whole = cohort.mask(cohort.ready(), 1, cohort.vectors(), lost="c")
    openings = cohort.open(whole, cohort.agree(whole))
    openings["a"] = replace(openings["a"], lost={"c": wrong(openings["a"].lost["c"])})
    with pytest.raises(FederationError, match="the shares of the mask key of 'c' in sum 1"):
        whole.total(openings)


def test_a_wrong_piece_or_seed_is_found_out(cohort: Cohort) -> None:
    """The shares of the others give what they should have given."""
    ready, vectors = cohort.ready(), cohort.vectors()
    whole = cohort.mask(ready, 1, vectors)
    openings = cohort.open(whole, {})
    pieces = {**openings["e"].pieces, "b": bytes(31)}
    openings["e"] = replace(openings["e"], pieces=pieces)
    assert (whole.total(openings) == plain(vectors)).all()
    whole = cohort.mask(ready, 2, vectors, lost="c")
    openings = cohort.open(whole, cohort.agree(whole))
    openings["a"] = replace(openings["a"], seed=bytes(31))
    assert (whole.total(openings) == plain(vectors, "c")).all()
    seeds = {**openings["b"].seeds, "a": wrong(openings["b"].seeds["a"])}
    openings["b"] = replace(openings["b"], seeds=seeds)
    with pytest.raises(FederationError, match="the shares of the seed of 'a' in sum 2"):
        whole.total(openings)


def test_messages_are_of_their_kind(cohort: Cohort) -> None:
    good = write(cohort.invitation())
    assert read(Invitation, good) == cohort.invitation()
    for odd in (b"", good[:-1], write({"experiment": "x"}), write([1, 2]), b"\xc1"):
        with pytest.raises(ValueError, match=r"."):
            read(Invitation, odd)
    for kind, fields in (
        (Agreement, {"signature": b"x" * 201}),
        (Opening, {"seed": b"short", "lost": {}, "seeds": {}, "pieces": {}}),
        (Opening, {"seed": None, "lost": {"a": b"short"}, "seeds": {}, "pieces": {}}),
        (OpenRequest, {"number": 0, "survivors": []}),
        (OpenRequest, {"number": 1, "survivors": [b"a"]}),
        (Invitation, {**read(dict, good), "experiment": "../" + "0" * 29}),
        (Invitation, {**read(dict, good), "count": 10**6}),
    ):
        with pytest.raises(ValueError, match=r"."):
            read(kind, write(fields))


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a directory should be")
    with pytest.raises(FederationError, match="cannot keep its secrets"):
        MemoryFile(tmp_path / "a" / "sums").write(Cohort(tmp_path, 3).files["b"].read())
