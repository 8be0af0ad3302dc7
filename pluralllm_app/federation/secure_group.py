"""A node's part in secure sums: what it is asked, and where its secrets lie."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from flwr.app import ConfigRecord, RecordDict

from pluralllm_app.core.atomic import write_atomically
from pluralllm_app.errors import FederationError, RefusedError
from pluralllm_app.federation.ledger import Draw, spend
from pluralllm_app.federation.meaning import meaning_of
from pluralllm_app.federation.messages import record_of
from pluralllm_app.federation.noised_updates import NoisedUpdates
from pluralllm_app.federation.peers import signing_key, trusted_peers
from pluralllm_app.federation.policy import Policy
from pluralllm_app.federation.summands import MASKED, Summands
from pluralllm_app.learning.base import ArrayForm, Contribution, Form, Request
from pluralllm_app.learning.factors import CONTRIBUTORS
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.scoring.metrics import GroupScores
from pluralllm_app.scoring.results import Role
from pluralllm_app.scoring.sums import summands, summed
from pluralllm_app.secure_sum.group import GroupHalf
from pluralllm_app.secure_sum.memory import MemoryFile
from pluralllm_app.secure_sum.messages import (
    AgreeRequest,
    Invitation,
    MaskRequest,
    OpenRequest,
    Roll,
    read,
    write,
)
from pluralllm_app.secure_sum.signing import Identity
from pluralllm_app.settings import Settings

Survivors = TypeVar("Survivors", AgreeRequest, OpenRequest)
SECURE_SUM, SECURE_SCORES = "secure-sum", "secure-scores"  # records of a message
EXPERIMENT, STEP, CONTENT = "experiment", "step", "content"
ADVERTISE, DEAL, AGREE, OPEN, MASK = "advertise", "deal", "agree", "open", "mask"
_DIRECTORY, _SUMS = "secure-sums", "sums"
_IDLE_SECONDS = 24 * 3600.0  # after which a run that goes on makes new keys anyway


def pack(experiment: str, step: str, content: object) -> ConfigRecord:
    """A message of the protocol.

    Args:
        experiment: names the run.
        step: of the protocol.
        content: one of `secure_sum.messages`.
    """
    return ConfigRecord({EXPERIMENT: experiment, STEP: step, CONTENT: write(content)})


@dataclass(frozen=True)
class SecureGroup:
    """The group's half of secure sums, and the message that it is asked by.

    Args:
        half: of the group.
        settings: of the run.
        step: of the protocol.
        content: of the message, a message of the protocol.
        node: directory of the node in a deployment; None in a simulation.
        role: of the group, which sums with others of its role alone.
    """

    half: GroupHalf
    settings: Settings
    step: str
    content: bytes
    node: Path | None
    role: Role = "train"

    @classmethod
    def of(
        cls,
        content: RecordDict,
        settings: Settings,
        group: str,
        memory: Path,
        node: Path | None,
        role: Role = "train",
        record_name: str = SECURE_SUM,
    ) -> "SecureGroup":
        """What a message asks of a group.

        Args:
            content: of the message.
            settings: of the run.
            group: its name.
            memory: a directory of the group's own.
            node: directory of the node in a deployment; None in a simulation.
            role: of the group, which sums with others of its role alone.
            record_name: of the record that asks for it.

        Raises:
            FederationError: the run sums securely, and the message says nothing of it; or the other
                way round.
            ValueError: it is no message of the protocol.
        """
        record = record_of(content, record_name, ConfigRecord)
        if settings.federation.privacy != SECURE_SUM:
            raise FederationError("this run has privacy = 'none', and the server asks for a sum")
        if not record:
            raise FederationError(
                "this run has privacy = 'secure-sum', and the server does not say which sum"
            )
        experiment, step, message = (record.get(name) for name in (EXPERIMENT, STEP, CONTENT))
        if not (
            isinstance(experiment, str) and isinstance(step, str) and isinstance(message, bytes)
        ):
            raise ValueError("it is no message of a secure sum")
        if len(experiment) != 32 or not set(experiment) <= set("0123456789abcdef"):
            raise ValueError("the message of a secure sum names no experiment")
        place = memory / _DIRECTORY / experiment
        half = GroupHalf(_identity(group, place, node, role), MemoryFile(place / _SUMS))
        return cls(half, settings, step, message, node, role)

    def answer(self, weight: int, policy: Policy) -> object:
        """The answer to a step without a vector.

        Args:
            weight: of this group.
            policy: of its node.

        Raises:
            RefusedError: this group does not do that.
            ValueError: it is no message of the protocol.
        """
        half = self.half
        steps: dict[str, Callable[[], object]] = {
            ADVERTISE: lambda: self._advertise(read(Invitation, self.content), weight, policy),
            DEAL: lambda: half.deal(read(Roll, self.content)),
            AGREE: lambda: half.agree(self._of_enough(AgreeRequest, policy)),
            OPEN: lambda: half.open(self._of_enough(OpenRequest, policy)),
        }
        if self.step not in steps:
            raise ValueError(f"a secure sum has no step {self.step!r}")
        return steps[self.step]()

    def _of_enough(self, kind: type[Survivors], policy: Policy) -> Survivors:
        request = read(kind, self.content)
        self._check_enough(len(request.survivors), policy)
        return request

    def _check_enough(self, groups: int, policy: Policy) -> None:
        known = self.half.known or groups
        if policy.pinned:  # and not only those of them that a server has named so far
            known = len({*policy.pins(self.role), self.half.group})
        policy.check_cohort(groups, known, self.role)

    def masked(
        self, form: Form, sent: Arrays, contribution: Contribution, request: Request
    ) -> Contribution:
        """What the group sends of a contribution: a masked vector, and no metrics.

        Args:
            form: of the contribution.
            sent: what the group was sent.
            contribution: of the learner and the hooks.
            request: what the group was asked.

        Raises:
            FederationError: a number is too large, or what was sent leaves no room.
            RefusedError: the server counts more groups than there are; or see `GroupHalf.mask`.
        """
        groups = len(self.half.weights(self._which().number))
        if CONTRIBUTORS in sent and not (sent[CONTRIBUTORS] <= groups).all():
            raise RefusedError("the server counts more groups for a row than the sum is over")
        noise = GroupNoise.of(self.settings.federation)
        return self._masked(form, sent, contribution, request, noise)

    def masked_scores(self, sent: Arrays, scores: GroupScores, round_number: int) -> Arrays:
        """The scores of the group, masked.

        Args:
            sent: what was scored.
            scores: of it.
            round_number: of it.

        Raises:
            FederationError: see `scoring.sums.summands`.
            RefusedError: see `GroupHalf.mask`.
        """
        added = summands(scores, self.settings.split)
        arrays = {name: np.array([value]) for name, value in added.items()}
        request = scores_request(self.half.place.name, round_number)
        form = scores_form(self.settings)
        return self._masked(form, sent, Contribution(arrays, 1.0, {}), request).arrays

    def _which(self) -> MaskRequest:
        if self.step != MASK:
            raise ValueError(f"the message has no step {self.step!r} of a secure sum")
        return read(MaskRequest, self.content)

    def _masked(
        self,
        form: Form,
        sent: Arrays,
        contribution: Contribution,
        request: Request,
        noise: GroupNoise | None = None,
    ) -> Contribution:
        which = self._which()
        weights = self.half.weights(which.number)
        summands = Summands.of(form, weights, self.settings.federation.weight_cap, noise)
        vector = summands.vector(self.half.group, sent, contribution)
        meaning = meaning_of(self.settings, request, sent, summands)
        if noise:
            [field] = summands.layout.fields.values()
            scale = noise.scale(field.bits, field.size, self.half.threshold(which.number))
            vector = self.noised_updates(noise).of(vector, scale, meaning.digest, meaning.round)
        masked = self.half.mask(which, meaning, vector)
        return Contribution({MASKED: masked}, contribution.weight, {})

    def noised_updates(self, noise: GroupNoise) -> NoisedUpdates:
        """Where the group's updates with the noise of a run are kept, each noted in the ledger."""
        federation, place = self.settings.federation, self.half.place
        draw = Draw("groups", noise.rho, federation.epsilon, federation.delta)

        def note(name: str) -> None:
            if self.node:
                spend(self.node, name, draw)

        return NoisedUpdates(place.parent.parent, place.name, note)

    def _advertise(self, invitation: Invitation, weight: int, policy: Policy) -> object:
        self._check_enough(len(invitation.cohort), policy)
        place = self.half.place
        if invitation.experiment != place.name:
            raise ValueError("the invitation is of another run")
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for other in place.parent.iterdir():  # of runs that have ended, as no server says
            MemoryFile(other / _SUMS).forget_after(_IDLE_SECONDS)
        uniform = self.settings.federation.weighting == "uniform"
        return self.half.advertise(invitation, 1 if uniform else weight)


def scores_form(settings: Settings) -> Form:
    """What a group adds to a sum of scores, before it is masked."""
    one = ArrayForm(np.dtype(np.float64), (1,), 0.0, 1.0)
    return Form({name: one for name in summed(settings.split)}, {})


def scores_request(experiment: str, round_number: int) -> Request:
    """What stands for a request where scores are summed.

    Args:
        experiment: names the sums.
        round_number: of what is scored.
    """
    return Request(round=round_number, evaluate=True, experiment=experiment, counted=0)


def _identity(group: str, place: Path, node: Path | None, role: Role) -> Identity:
    if node:
        return Identity(group, signing_key(node), trusted_peers(node, role))
    return Identity(group, _simulated_key(place))


def _simulated_key(place: Path) -> ec.EllipticCurvePrivateKey:
    """A key that a group of a simulation makes for a run."""
    file = place / "identity.key"
    if file.exists():
        key = load_der_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey), "written below"
        return key
    made = ec.generate_private_key(ec.SECP384R1())
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(file, content, secret=True)
    return made
