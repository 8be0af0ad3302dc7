"""The ClientApp: describe / train / evaluate, on the partition of one group."""

import re
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pluralllm_app.errors import FederationError, RefusedError, SettingsError
from pluralllm_app.federation import hooks
from pluralllm_app.federation.bounds import MOST_LOSS
from pluralllm_app.federation.flower_compat import LOGGER, log_errors_plainly
from pluralllm_app.federation.ledger import admit
from pluralllm_app.federation.meaning import counts_request
from pluralllm_app.federation.messages import (
    ARRAYS,
    CONFIG,
    Evaluation,
    MaskedScores,
    NodeDescription,
    Update,
    arrays_to_record,
    installed,
    record_of,
    record_to_arrays,
    record_to_request,
    withheld_scores,
)
from pluralllm_app.federation.node_files import draws_of
from pluralllm_app.federation.partition import Place, locate
from pluralllm_app.federation.peers import introduced, meet
from pluralllm_app.federation.places import with_places
from pluralllm_app.federation.policy import Policy
from pluralllm_app.federation.quiet_errors import without_content
from pluralllm_app.federation.reward_group import (
    reward_contribution,
    reward_form,
    reward_request,
)
from pluralllm_app.federation.secure_group import (
    CONTENT,
    SECURE_SCORES,
    SECURE_SUM,
    SecureGroup,
)
from pluralllm_app.learning.base import Contribution, Form, Learner
from pluralllm_app.learning.device import prepare_processor, torch_device
from pluralllm_app.learning.registry import Given, make_learner, with_torch
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.preferences import split_questions
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.scoring.evaluation import evaluate as evaluate_group
from pluralllm_app.scoring.results import ROLES, Role
from pluralllm_app.secure_sum.messages import write
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.survey.prepared import PreparedSurvey

app = ClientApp()
log_errors_plainly()


def _config(context: Context) -> tuple[tuple[str, Scalar], ...]:
    """The run config, with the paths that it may lack in a simulation."""
    simulated = "partition-id" in context.node_config
    return tuple(with_places(context.run_config, context.run_id, simulated=simulated).items())


@lru_cache(maxsize=1, typed=True)
def _settings(config: tuple[tuple[str, Scalar], ...]) -> Settings:
    return Settings.from_config(dict(config))


# A process serves many messages, in simulation of many groups: it keeps one predictor, and copies
# the weights of each message into it.
@lru_cache(maxsize=1, typed=True)
def _learner(
    config: tuple[tuple[str, Scalar], ...], survey: PreparedSurvey, device: str
) -> Learner:
    given = Given(_settings(config), survey.dim, survey.all_questions, device=device)
    return make_learner(given)


def device_of(context: Context, settings: Settings) -> str:
    """Where this node computes: what its node config says wins over the run's settings.

    Raises:
        SettingsError: it is not a device, or one that torch does not see here.
    """
    device = str(context.node_config.get("device", settings.training.device))
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise SettingsError(
            f"the node config's device = {device!r} is not a device: give auto, cpu, cuda or, "
            "where there are more GPUs, cuda:1 and so on"
        )
    if device.startswith("cuda"):
        import torch  # not at the top: factors do without

        _, _, number = device.partition(":")
        if int(number or 0) >= torch.cuda.device_count():
            raise SettingsError(
                f"device = {device!r}, but torch sees no such GPU here: set device = 'auto', or "
                "PLURALLLM_DEVICE where the node's start.sh runs"
            )
    return torch_device(device) if with_torch(settings) else "cpu"


@dataclass(frozen=True)
class Received:
    """A message with arrays, and with what this node answers it."""

    settings: Settings
    place: Place
    learner: Learner  # the one of this process
    sent: Arrays  # what the server sent for it

    @classmethod
    def read(cls, message: Message, context: Context) -> "Received":
        """Find what the node holds, prepare the processor, and unpack the arrays."""
        config = _config(context)
        settings = _settings(config)
        if settings.federation.purpose != "train":
            raise RefusedError("the run is for rewards, and the server asks for something else")
        place = locate(context, settings)
        prepare_processor(settings.training.client_threads, with_torch(settings))
        learner = _learner(config, place.survey, device_of(context, settings))
        sent = record_to_arrays(record_of(message.content, ARRAYS, ArrayRecord))
        return cls(settings, place, learner, sent)

    def scored(self, message: Message, round_number: int) -> RecordDict:
        """How what was sent does on the node's group, as what is said of it.

        Args:
            message: which asks for it.
            round_number: of what was sent.

        Raises:
            RefusedError: noise hides what the group answered, and has to.
        """
        if self.settings.federation.noise == "groups" and self.place.group.role == "train":
            raise RefusedError(
                "with noise = 'groups' train groups are not scored, since scores have no noise"
            )
        found = self.score()
        if self.settings.federation.scores == "per-group":
            return found.to_content()
        asked = _secure_group(message, self.settings, self.place, SECURE_SCORES)
        masked = asked.masked_scores(self.sent, found.scores, round_number)
        return MaskedScores(masked, found.seconds).to_content()

    def score(self) -> Evaluation:
        """Score what was sent on the node's group."""
        start = time.perf_counter()
        result = evaluate_group(
            self.learner.predictor(self.sent),
            self.place.preferences(self.settings),
            self.place.group.role,
            self.settings.split,
            self.settings.evaluation,
            self.place.survey.metric,
        )
        seconds = time.perf_counter() - start
        loss = result.loss
        # Noise can leave weights whose deviations overflow; the predicted shares can be scored.
        if self.settings.federation.noise == "groups" and not abs(loss or 0.0) <= MOST_LOSS:
            loss = None
        return Evaluation(result.scores, loss, result.coverage, seconds=seconds)


@app.query()
@without_content
def describe(message: Message, context: Context) -> Message:
    """Say which group this node holds, and of which survey."""
    settings = _settings(_config(context))
    device_of(context, settings)  # what is not there is told before training: a device, opendp
    GroupNoise.of(settings.federation)
    place = locate(context, settings)
    if place.node:
        admit(place.node, settings, context.run_id)
        said, others = (introduced(message.content, role) for role in ROLES)
        for line in meet(place.node, place.group.name, said, others):
            LOGGER.info("%s", line)
    survey, group = place.survey, place.group
    description = NodeDescription(
        group=group.name,
        role=group.role,
        questions=group.questions,
        pool=len(split_questions(place.preferences(settings), group.role, settings.split).train),
        name=survey.name,
        survey_questions=len(survey.table),
        fingerprint=survey.fingerprint,
        dim=survey.dim,
        metric=survey.metric,
        version=installed(),
        nodes=int(context.node_config.get("num-partitions", 0)),
    )
    return Message(description.to_content(), reply_to=message)


@app.train()
@without_content
def train(message: Message, context: Context) -> Message:
    """Learn from this group's answers, and score what was received before, where asked to."""
    received = Received.read(message, context)
    request = record_to_request(record_of(message.content, CONFIG, ConfigRecord))
    if message.metadata.group_id != str(request.round):  # which the node's audit log names
        raise FederationError("the train message names two rounds")
    place, sent = received.place, received.sent
    if place.group.role != "train":
        raise RefusedError("its site says that its group never trains")
    withheld = False
    if place.node:
        policy = admit(place.node, received.settings, context.run_id, rounds=1)
        own = draws_of(place.node, dict(_config(context)), sent, request)
        request = replace(request, draws=own)
        withheld = policy.withholds(received.settings)
    content = RecordDict()
    if request.evaluate:
        content = withheld_scores() if withheld else received.scored(message, request.round - 1)
    preferences = place.preferences(received.settings)
    start = time.perf_counter()
    memory = place.learners_memory(received.settings)
    contribution = received.learner.contribute(sent, preferences, request, memory)
    seconds = time.perf_counter() - start
    contribution = hooks.at_group(place.group.name, sent, contribution, request)
    if received.settings.federation.privacy != "none":
        form = hooks.sent_form(received.learner.form(sent))
        asked = _secure_group(message, received.settings, place)
        contribution = asked.masked(form, sent, contribution, request)
    content.update(Update(contribution, seconds).to_content())
    return Message(content, reply_to=message)


@app.query("secure_sum")
@without_content
def secure_sum(message: Message, context: Context) -> Message:
    """Take a step of the protocol of secure sums: keys, shares, or what opens a sum."""
    settings = _settings(_config(context))
    place = locate(context, settings)
    policy = admit(place.node, settings, context.run_id) if place.node else Policy()
    train = split_questions(place.preferences(settings), place.group.role, settings.split).train
    answer = _secure_group(message, settings, place).answer(len(train), policy)
    content = RecordDict({SECURE_SUM: ConfigRecord({CONTENT: write(answer)})})
    return Message(content, reply_to=message)


@app.query("secure_counts")
@without_content
def secure_counts(message: Message, context: Context) -> Message:
    """What is summed before the first round, masked."""
    received = Received.read(message, context)
    place, sent = received.place, received.sent
    if place.group.role != "train":
        raise RefusedError("its group never trains, and counts nothing for those that do")
    if place.node:
        admit(place.node, received.settings, context.run_id)
    known = received.learner.counts(sent, place.preferences(received.settings))
    counts = Contribution(known, 1.0, {})
    asked = _secure_group(message, received.settings, place)
    form = Form(received.learner.count_forms(sent), {})
    masked = asked.masked(form, sent, counts, counts_request(asked.half.place.name))
    return Message(RecordDict({ARRAYS: arrays_to_record(masked.arrays)}), reply_to=message)


@app.query("reward")
@without_content
def reward(message: Message, context: Context) -> Message:
    """Say how many of this group's people pick some options, or add that to a secure sum."""
    settings = _settings(_config(context))
    place = locate(context, settings)
    if place.node:
        admit(place.node, settings, context.run_id)
    sent = record_to_arrays(record_of(message.content, ARRAYS, ArrayRecord))
    found = reward_contribution(
        sent, place.preferences(settings), place.group.role, settings.federation
    )
    if settings.federation.privacy != "none":
        asked = _secure_group(message, settings, place)
        request = reward_request(sent, asked.half.place.name)
        found = asked.masked(reward_form(sent, secure=True), sent, found, request)
    return Message(RecordDict({ARRAYS: arrays_to_record(found.arrays)}), reply_to=message)


def _secure_group(
    message: Message, settings: Settings, place: Place, record_name: str = SECURE_SUM
) -> SecureGroup:
    role = cast(Role, place.group.role)
    if role != "train" and settings.federation.scores != "mean":
        raise FederationError("this group never trains, and adds nothing to sums")
    group, memory = place.group.name, place.memory
    return SecureGroup.of(message.content, settings, group, memory, place.node, role, record_name)


@app.evaluate()
@without_content
def evaluate(message: Message, context: Context) -> Message:
    """Score what was received on this group."""
    received = Received.read(message, context)
    if received.place.node:
        admit(received.place.node, received.settings, context.run_id, scores=True)
    content = received.scored(message, int(message.metadata.group_id))
    return Message(content, reply_to=message)
