"""Factors first, and then the GPO network on top of them, in one run.

The first rounds learn factors by sums, as `learning.factors` does. Once these are settled, or half
of the rounds are over, they stay as they are, and the rounds that follow train a network that
corrects what they predict, as `learning.gpo` does. Groups tell the two by what they are sent.

A train group's answers have shaped the factors, which predict it better than a new group. In
training it therefore takes its own part of the last sums off, see `learning.self_check`: the
network must not learn to trust factors that know the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pluralllm_app.learning.base import (
    ArrayForm,
    Contribution,
    Contributions,
    Form,
    Request,
    State,
    Strategy,
)
from pluralllm_app.learning.description_sums import DescriptionSums, Regression
from pluralllm_app.learning.factors import ALL_LEARN, FactorsLearner
from pluralllm_app.learning.gpo import WEIGHTS, GPOLearner
from pluralllm_app.learning.kept import Kept
from pluralllm_app.learning.local_steps import initial_model
from pluralllm_app.learning.node_memory import NodeMemory
from pluralllm_app.learning.self_check import Others
from pluralllm_app.learning.sums import Part
from pluralllm_app.predictors.base import Arrays, ContextPredictor
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior
from pluralllm_app.predictors.factors.predictor import FactorsPredictor
from pluralllm_app.predictors.gpo.network import GPO, in_precision
from pluralllm_app.predictors.gpo.rows import on_device
from pluralllm_app.predictors.refined.network import distances, neutral_network, refine
from pluralllm_app.predictors.refined.predictor import RefinedPredictor
from pluralllm_app.predictors.refined.rows import look_each
from pluralllm_app.preferences import PreferenceSet, Task
from pluralllm_app.settings import Settings

FACTOR_ROUNDS = "factor-rounds"  # [1] how many rounds learned the factors; sent from then on
_FACTORS = "factors."  # what begins the names of their arrays from then on


class RefinedLearner:
    """A network on top of factors.

    Args:
        settings: of the run.
        dim_x: width of the survey's embeddings.
        factors: learns them, the half that is here.
        strategy: of the server, for the network's weights; None at a group.
        device: where this half computes.
    """

    def __init__(
        self,
        settings: Settings,
        dim_x: int,
        factors: FactorsLearner,
        strategy: Strategy | None = None,
        device: str = "cpu",
    ) -> None:
        self._rounds = settings.federation.rounds
        self._factors = factors
        self._kept = Kept()
        untrained = partial(initial_model, make=neutral_network)
        self._steps = GPOLearner(settings, dim_x, strategy, device, untrained)

    def form(self, sent: Arrays) -> Form:
        """Sums, and later weights."""
        return (self._steps if FACTOR_ROUNDS in sent else self._factors).form(sent)

    @property
    def needs_individual_updates(self) -> bool:
        """Whether its strategy looks at single updates of the network."""
        return self._steps.needs_individual_updates

    def contribute(
        self, sent: Arrays, preferences: PreferenceSet, request: Request, memory: Path
    ) -> Contribution:
        """The group's part of the sums or, once there are factors, trained weights."""
        if FACTOR_ROUNDS not in sent:
            return self._factors.contribute(sent, preferences, request, memory / "factors")
        done = int(sent[FACTOR_ROUNDS][0])
        learned = _factors_in(sent)
        factors = self._factors.predictor(learned, again=False)
        part = _last_part(request, done, memory) if request.options[ALL_LEARN] else None
        if part:
            known = self._factors.known(learned, preferences)
            rest = self._kept.get(
                (factors.factors, request.experiment, known.group),
                lambda: _rest(factors, known, part, learned),
            )
            factors = _with_rest(factors, known, rest)
        return self._steps.train(
            sent,
            preferences,
            replace(request, round=request.round - done, counted=max(0, request.counted - done)),
            memory / "network",
            self._rounds - done,
            partial(refined_losses, factors),
        )

    def initial_state(self) -> State:
        """That of the factors."""
        return self._factors.initial_state()

    def count_forms(self, sent: Arrays) -> Mapping[str, ArrayForm]:
        """That of the factors."""
        return self._factors.count_forms(sent)

    def counts(self, sent: Arrays, preferences: PreferenceSet) -> Arrays:
        """Those of the factors."""
        return self._factors.counts(sent, preferences)

    def counted(self, state: State, totals: Arrays) -> State:
        """That of the factors."""
        return self._factors.counted(state, totals)

    def options(self) -> Mapping[str, float]:
        """Those of both."""
        return {**self._factors.options(), **self._steps.options()}

    def combine(self, round_number: int, state: State, contributions: Contributions) -> State:
        """The next factors, or the next weights; the last factors get an untrained network."""
        if FACTOR_ROUNDS not in state.sent:
            found = self._factors.combine(round_number, state, contributions)
            if not self._factors.settled(found) and round_number < max(1, self._rounds // 2):
                return found
            learned = {_FACTORS + name: array for name, array in found.sent.items()}
            done = {FACTOR_ROUNDS: np.array([round_number])}
            untrained = self._steps.initial_state()
            return State({**learned, **done, **untrained.sent}, untrained.kept)
        before = State({WEIGHTS: state.sent[WEIGHTS]}, state.kept)
        found = self._steps.combine(round_number, before, contributions)
        return State({**state.sent, **found.sent}, found.kept)

    def settled(self, state: State) -> bool:
        """Never: once factors are settled, the network's schedule is made for the other rounds."""
        return False

    def predictor(self, sent: Arrays) -> ContextPredictor:
        """The factors and, once there is one, the network on top of them."""
        if FACTOR_ROUNDS not in sent:
            return self._factors.predictor(sent)
        factors = self._factors.predictor(_factors_in(sent))
        return RefinedPredictor(factors, self._steps.load(sent))

    def work(self, sent: Arrays, groups: int) -> tuple[int, int]:
        """That of sums, and later that of local steps."""
        return (self._steps if FACTOR_ROUNDS in sent else self._factors).work(sent, groups)


def refined_losses(
    factors: FactorsPredictor, network: GPO, tasks: Sequence[Task], precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Losses of a network on top of `factors`, see `local_steps.Losses`.

    They are the mean Jensen-Shannon distance of a task's questions, by which most surveys are
    scored: the likelihood, which weighs rows that the factors are sure of for more, gave lower
    scores of groups left out.
    """
    pairs = [(task.context, task.target) for task in tasks]
    with in_precision(network.device, precision):
        shares, options = refine(network, pairs, look_each(factors, pairs))
    true = on_device(network.device, np.concatenate([task.target.shares for task in tasks]))
    parts = torch.split(distances(shares, true, options), [len(task.target) for task in tasks])
    return torch.stack([part.mean() for part in parts]), shares


def _factors_in(sent: Arrays) -> Arrays:
    """What `FactorsLearner` sent, of what is sent once there are factors."""
    return {
        name.removeprefix(_FACTORS): array
        for name, array in sent.items()
        if name.startswith(_FACTORS)
    }


def _last_part(request: Request, done: int, memory: Path) -> Part | None:
    """The group's part of the sums that the factors were learned from; None where unknown.

    Args:
        request: of the server.
        done: how many rounds learned the factors.
        memory: of the group.
    """
    own = NodeMemory(memory / "own" / request.experiment, "part of the sums")
    if request.counted == done:  # later on nobody says whether its last part counted
        sums = NodeMemory(memory / "factors" / request.experiment, "sums").find(done)
        if sums:
            own.keep(done, sums, done)
    found = own.find(done)
    return Part.of(found) if found else None


def _rest(factors: FactorsPredictor, known: PreferenceSet, part: Part, sent: Arrays) -> Arrays:
    """What differs in factors without a group's own part of the sums: of its n rows, and the prior.

    Args:
        factors: with it.
        known: the answers that the group learned from.
        part: its part of the sums.
        sent: what the factors were made from.
    """
    others = Others(factors.factors.of_rows(known.rows), Regression.unpack(sent), honest=False)
    dim = factors.kernel.landmarks.shape[1] // 2
    described = DescriptionSums.of(known.description, dim, part.second)
    rest = others.without(part, described, sent["change"])
    prior = rest.regression.prior
    return {
        "mean": rest.factors.mean,
        "covariance": rest.factors.covariance,
        "prior-weights": prior.weights,
        "prior-variance": prior.variance,
    }


def _with_rest(factors: FactorsPredictor, known: PreferenceSet, rest: Arrays) -> FactorsPredictor:
    """The factors with what `_rest` says of them."""
    both = factors.factors
    mean, covariance = both.mean.copy(), both.covariance.copy()
    mean[known.rows], covariance[known.rows] = rest["mean"], rest["covariance"]
    return FactorsPredictor(
        replace(both, mean=mean, covariance=covariance),
        factors.kernel,
        factors.calibration,
        DescriptionPrior(rest["prior-weights"], rest["prior-variance"]),
        factors.text,
    )
