"""The GPO preference predictor, learned by a few local steps at each group and a strategy."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pluralllm_app.errors import FederationError
from pluralllm_app.learning.base import (
    JS_DIVERGENCE,
    PROXIMAL_MU,
    ArrayForm,
    Contribution,
    Contributions,
    Form,
    Request,
    State,
    Strategy,
)
from pluralllm_app.learning.local_steps import (
    Losses,
    initial_model,
    losses_of,
    tasks_per_round,
    train_group,
)
from pluralllm_app.learning.node_memory import NodeMemory
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.gpo.network import GPO, get_weights, set_weights
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.preferences import PreferenceSet, split_questions
from pluralllm_app.privacy.groups import GroupNoise
from pluralllm_app.settings import Settings

WEIGHTS = "weights"
"""The one array of its state: all parameters [P] float32, in the order of the state dict.

One array instead of one per layer: each array costs a header to write and to parse, on every trip.
"""
LOSS = "loss"
LARGEST_STEP = 2.0**6  # that a weight changes by in a round, in a secure sum


class GPOLearner:
    """Local steps at the groups (arXiv 2503.09925, algorithm 1) and any strategy at the server.

    Args:
        settings: of the run.
        dim_x: width of the survey's embeddings.
        strategy: of the server; None at a group, which only contributes and scores.
        device: where this half computes.
        untrained: makes the network that the first round starts from.
    """

    def __init__(
        self,
        settings: Settings,
        dim_x: int,
        strategy: Strategy | None = None,
        device: str = "cpu",
        untrained: Callable[[int, Settings], GPO] = initial_model,
    ) -> None:
        self._settings = settings
        self._dim_x = dim_x
        self._strategy = strategy
        self._device = device
        self._untrained = untrained
        self._noise = GroupNoise.of(settings.federation)

    @cached_property
    def _network(self) -> GPO:
        """The process's one network; weights are copied into it."""
        return self._untrained(self._dim_x, self._settings).to(self._device)

    def form(self, sent: Arrays) -> Form:
        """One vector of weights, with the loss and the divergence of the last tasks.

        Where noise hides groups, the latter stay with them.
        """
        parameters = sum(parameter.numel() for parameter in self._network.parameters())
        room = self._noise.room if self._noise else LARGEST_STEP
        weights = ArrayForm(np.dtype(np.float32), (parameters,), room=room)
        weighs = self._strategy is None or self._strategy.weighs
        metrics = {} if self._noise else {LOSS: -math.inf, JS_DIVERGENCE: 0.0}
        return Form({WEIGHTS: weights}, metrics, weighs=weighs)

    @property
    def needs_individual_updates(self) -> bool:
        """Whether its strategy looks at single updates."""
        return self.strategy.needs_individual_updates

    @property
    def strategy(self) -> Strategy:
        """The server's strategy."""
        assert self._strategy is not None, "a group's half has no strategy"
        return self._strategy

    def contribute(
        self, sent: Arrays, preferences: PreferenceSet, request: Request, memory: Path
    ) -> Contribution:
        """Train the weights that were sent on tasks drawn from the group's train questions."""
        rounds = self._settings.federation.rounds
        return self.train(sent, preferences, request, memory, rounds, losses_of)

    def train(
        self,
        sent: Arrays,
        preferences: PreferenceSet,
        request: Request,
        memory: Path,
        rounds: int,
        losses: Losses,
    ) -> Contribution:
        """`contribute` in a run of so many rounds, and on these losses."""
        settings = self._settings
        network = self.load(sent)
        moments = NodeMemory(memory / request.experiment, "moments")
        keeps = settings.training.client_optimizer_state == "keep"
        statistics, optimizer_state = train_group(
            network,
            preferences,
            settings.training,
            seed=settings.federation.seed if request.draws is None else request.draws,
            split=settings.split,
            round_number=request.round,
            rounds=rounds,
            proximal_mu=request.options.get(PROXIMAL_MU, 0.0),
            optimizer_state=moments.load(request.counted) if keeps and request.counted else None,
            losses=losses,
        )
        if keeps:
            moments.keep(request.round, optimizer_state, request.counted)
        metrics = {LOSS: statistics.loss, JS_DIVERGENCE: statistics.js_divergence}
        return Contribution(
            arrays={WEIGHTS: get_weights(network).cpu().numpy()},
            weight=len(split_questions(preferences, "train", settings.split).train),
            metrics={} if self._noise else metrics,
        )

    def initial_state(self) -> State:
        """Untrained weights; they depend on the seed and the sizes alone."""
        return State({WEIGHTS: get_weights(self._untrained(self._dim_x, self._settings)).numpy()})

    def count_forms(self, sent: Arrays) -> Mapping[str, ArrayForm]:
        """Nothing."""
        return {}

    def counts(self, sent: Arrays, preferences: PreferenceSet) -> Arrays:
        """Nothing."""
        return {}

    def counted(self, state: State, totals: Arrays) -> State:
        """The same state."""
        return state

    def options(self) -> Mapping[str, float]:
        """Those of the strategy."""
        return self.strategy.group_options

    def combine(self, round_number: int, state: State, contributions: Contributions) -> State:
        """Aggregate the trained weights by the strategy."""
        combined, carried = self.strategy.aggregate(
            round_number, state.sent, state.kept, contributions
        )
        # Several strategies compute in float64.
        sent = {name: array.astype(np.float32) for name, array in combined.items()}
        try:
            self.form(sent).check_arrays(sent)
        except ValueError as error:
            name = self._settings.federation.strategy
            raise FederationError(
                f"round {round_number}: the weights {name} gave are not usable ({error}): lower "
                "the learning rates"
            ) from error
        return State(sent, carried)

    def settled(self, state: State) -> bool:
        """Never: its schedule is made for all rounds."""
        return False

    def predictor(self, sent: Arrays) -> GPOPredictor:
        """The predictor with these weights."""
        return GPOPredictor(self.load(sent))

    def work(self, sent: Arrays, groups: int) -> tuple[int, int]:
        """Optimiser steps one after another, and tasks of all groups."""
        training = self._settings.training
        return training.local_steps, groups * tasks_per_round(training)

    def load(self, sent: Arrays) -> GPO:
        """The network with these weights; it changes with the next call."""
        set_weights(self._network, torch.tensor(sent[WEIGHTS]))
        return self._network
