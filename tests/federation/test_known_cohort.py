"""A server that sums over a few groups of its choice: those with which it is in league, and one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import RecordDict

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.deploy.keys import make_node_key
from pluralllm_app.errors import RefusedError
from pluralllm_app.federation.flower_compat import key_bytes
from pluralllm_app.federation.peers import (
    KEY,
    introduced,
    introduction,
    meet,
    signing_key,
    trusted_peers,
)
from pluralllm_app.federation.policy import POLICY, Policy
from pluralllm_app.federation.registration import Member, fingerprint, parse_public_key
from pluralllm_app.federation.secure_group import (
    ADVERTISE,
    OPEN,
    SECURE_SUM,
    SecureGroup,
    pack,
)
from pluralllm_app.scoring.results import ROLES, Role
from pluralllm_app.secure_sum.messages import Invitation, OpenRequest
from pluralllm_app.settings import Settings


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The directory of the node of group A, which knows the train groups A to F."""
    write_atomically(tmp_path / KEY, make_node_key("a").private, secret=True)
    said = {key_bytes(signing_key(tmp_path).public_key()): Member("A", "train")}
    for name in "BCDEFGH":
        key = key_bytes(parse_public_key(make_node_key("x").public, "a key"))
        said[key] = Member(name, "evaluation" if name in "GH" else "train")
    meet(tmp_path, "A", introduced(introduction(said)))
    return tmp_path


def test_a_sum_over_a_part_of_the_groups_that_a_node_knows_is_refused(
    node: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings({"privacy": "secure-sum", "train-groups-per-round": 0})
    assert {*trusted_peers(node)} == {*"ABCDEF"}

    def asked(step: str, content: object) -> SecureGroup:
        message = RecordDict({SECURE_SUM: pack("0" * 32, step, content)})
        return SecureGroup.of(message, settings, "A", node / "memory", node)

    for step, content in (
        (ADVERTISE, Invitation("0" * 32, 1, 1, 3, tuple("ABC"))),
        (OPEN, OpenRequest(1, tuple("ABC"))),
    ):
        with pytest.raises(RefusedError, match="the sum is over 3 of the 6 train groups that it"):
            asked(step, content).answer(5, Policy())
    four = asked(ADVERTISE, Invitation("0" * 32, 1, 1, 3, tuple("ABCD")))
    assert four.answer(5, Policy())


def test_pins_count_whatever_a_server_names_of_them(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    """With two groups in league, and four that it leaves out or says never train."""
    settings = make_settings({"privacy": "secure-sum", "train-groups-per-round": 0})
    write_atomically(tmp_path / KEY, make_node_key("a").private, secret=True)
    publics = {name: make_node_key("x").public for name in "BCDEFGH"}
    shown = {name: f'{name} = "{fingerprint(public)}"' for name, public in publics.items()}
    (tmp_path / POLICY).write_text(
        "\n".join(["[peers]", *(shown[n] for n in "BCDEF"), "[evaluation-peers]", shown["G"]])
    )

    def hear(**roles: Role) -> None:
        said = {key_bytes(signing_key(tmp_path).public_key()): Member("A", "train")}
        for name, role in roles.items():
            said[key_bytes(parse_public_key(publics[name], "a key"))] = Member(name, role)
        content = introduction(said, "mean")
        meet(tmp_path, "A", *(introduced(content, role) for role in ROLES))

    def advertised(cohort: str) -> object:
        invitation = Invitation("0" * 32, 1, 1, len(cohort), tuple(cohort))
        message = RecordDict({SECURE_SUM: pack("0" * 32, ADVERTISE, invitation)})
        group = SecureGroup.of(message, settings, "A", tmp_path / "memory", tmp_path)
        return group.answer(5, Policy.read(tmp_path))

    hear(B="train", C="train")
    with pytest.raises(RefusedError, match="the sum is over 3 of the 6 train groups that it pins"):
        advertised("ABC")
    with pytest.raises(RefusedError, match=r"'D' in \[peers\], and the server says that it never"):
        hear(B="train", C="train", D="evaluation")
    with pytest.raises(RefusedError, match=r"'G' in \[evaluation-peers\], .* that it may train"):
        hear(G="train")
    with pytest.raises(RefusedError, match="pins no key for group 'H'"):
        hear(H="evaluation")
    hear(B="train", C="train", D="train", G="evaluation")
    assert advertised("ABCD")
    assert {*trusted_peers(tmp_path)} == {*"BCD"}
    assert {*trusted_peers(tmp_path, "evaluation")} == {"G"}


def test_the_share_is_for_the_owner_of_a_node_to_say() -> None:
    Policy().check_cohort(2, 3)
    with pytest.raises(RefusedError, match=r"least-cohort-share = 0\.66, and the sum is over 3 of"):
        Policy().check_cohort(3, 50)
    Policy(least_cohort_share=0.0).check_cohort(3, 50)


def test_an_evaluation_group_sums_with_others_of_its_role_alone(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    """A train group among them is none whose key it knows for that."""
    write_atomically(tmp_path / KEY, make_node_key("g").private, secret=True)
    members = {key_bytes(signing_key(tmp_path).public_key()): Member("G", "evaluation")}
    for name in "ABCHI":
        key = key_bytes(parse_public_key(make_node_key("x").public, "a key"))
        members[key] = Member(name, "evaluation" if name in "HI" else "train")
    said = introduction(members, "mean")
    meet(tmp_path, "G", *(introduced(said, role) for role in ("train", "evaluation")))
    changes = {"privacy": "secure-sum", "train-groups-per-round": 0, "scores": "mean"}
    settings = make_settings(changes)

    def invited(cohort: str) -> object:
        invitation = Invitation("0" * 32, 1, 1, 3, tuple(cohort))
        message = RecordDict({SECURE_SUM: pack("0" * 32, ADVERTISE, invitation)})
        place = tmp_path / "memory", tmp_path
        return SecureGroup.of(message, settings, "G", *place, "evaluation").answer(5, Policy())

    with pytest.raises(RefusedError, match="knows no key of 'A'"):
        invited("AGH")
    assert invited("GHI")
