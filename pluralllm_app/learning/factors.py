"""Latent factors, learned by sums: groups infer what is theirs, the server adds up and maximises.

A round is one step of variational Bayes, see `learning.sums`. The server needs of a contribution
only its part of the sums; in the clear it gives the group's answers away, see docs/privacy.md.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import FederationError
from pluralllm_app.learning.base import (
    JS_DIVERGENCE,
    ArrayForm,
    Contribution,
    Form,
    Request,
    State,
)
from pluralllm_app.learning.description_sums import DescriptionSums, Regression
from pluralllm_app.learning.kept import Unpacked
from pluralllm_app.learning.node_memory import NodeMemory
from pluralllm_app.learning.self_check import JUDGED, Others, SelfCheck, judged_shapes
from pluralllm_app.learning.sum_forms import array_forms
from pluralllm_app.learning.sum_rules import check_sums
from pluralllm_app.learning.sums import (
    FIRST,
    Part,
    Sums,
    TextFeatures,
    contribution,
    first_factors,
    maximise,
    to_standard,
)
from pluralllm_app.learning.threads import limit_products
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.predictors.factors.calibration import Calibration
from pluralllm_app.predictors.factors.descriptions import DescriptionPrior
from pluralllm_app.predictors.factors.model import Answers, Factors, Latent
from pluralllm_app.predictors.factors.packing import pack_factors, unpack_factors
from pluralllm_app.predictors.factors.predictor import FactorsPredictor, option_rows
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel
from pluralllm_app.preferences import PreferenceSet, QuestionSet, split_questions
from pluralllm_app.settings import Settings

MOST_FACTORS = 12
LANDMARKS = 1000  # of the text kernel, for the prior of offsets and loadings
OWN = 100  # of these, the first ones, for what is a group's own
PATIENCE, SETTLED = 3, 5e-4  # a run ends once its score has changed by less in so many rounds
CONTRIBUTORS = "contributors"  # [R] sent: how many groups have answered a row, as they say
ALL_LEARN = "all-learn"  # whether all train groups learn in each round


class FactorsLearner:
    """Sums over groups, and one step of variational Bayes on them at the server.

    Args:
        settings: of the run.
        questions: all questions of the survey, when they are needed.
        train_groups: how many there are; None at a group, which learns the sizes from the state.
    """

    needs_individual_updates = False

    def __init__(
        self,
        settings: Settings,
        questions: Callable[[], QuestionSet],
        train_groups: int | None = None,
    ) -> None:
        # Server and groups alike, so that a run has the same bits wherever its halves are.
        limit_products(settings.training.client_threads)
        self._settings = settings
        self._questions = questions
        self._train_groups = train_groups
        self._unpacked = Unpacked()

    @cached_property
    def _text(self) -> OptionRows:
        return option_rows(self._questions())

    @cached_property
    def _kernel(self) -> TextKernel:
        return TextKernel.fit(self._text, LANDMARKS)

    @cached_property
    def _features(self) -> TextFeatures:
        """Of all option rows of the survey."""
        return TextFeatures(self._kernel.features(self._text))

    @property
    def _groups(self) -> int:
        assert self._train_groups is not None, "only the server knows how many groups there are"
        return self._train_groups

    @property
    def _width(self) -> int:
        """J: an offset, and as many loadings as there can be factors."""
        return 1 + max(0, min(MOST_FACTORS, self._groups - 1))

    @property
    def _sampled(self) -> int:
        """How many groups learn in a round; 0: all of them."""
        count = self._settings.federation.train_groups_per_round
        return count if count < self._groups else 0

    def form(self, sent: Arrays) -> Form:
        """Sums that one group's answers can give, by the factors that it was sent."""
        factors = unpack_factors(sent)
        own = factors.variances.own or FIRST
        count = min(OWN, len(factors.weights))
        rule = partial(check_sums, factors, own, count)
        arrays = array_forms(factors, own, count, len(sent["described-cross"]) - 1)
        return Form(arrays, {"loss": -np.inf, JS_DIVERGENCE: 0.0}, rule)

    def known(self, sent: Arrays, preferences: PreferenceSet) -> PreferenceSet:
        """What a group learns from: its answers to train questions.

        Where sums are secure, only those to questions that enough groups have answered, as the
        server says: of others, the sum would be the answer of a group or two.

        Raises:
            FederationError: the server does not say how many have; or there is nothing left.
        """
        train = split_questions(preferences, "train", self._settings.split).train
        known = preferences.select(train)
        if self._settings.federation.privacy == "none":
            return known
        if CONTRIBUTORS not in sent:
            raise FederationError(
                "the server does not say how many groups have answered each row, without which "
                "this group gives no sums"
            )
        least = self._settings.federation.min_contributors
        enough = sent[CONTRIBUTORS][known.first_rows] >= least
        if enough.sum() < 2:
            raise FederationError(
                f"of the questions that group {known.group!r} may train on, fewer than 2 were "
                f"answered by min-contributors = {least} groups: run without it, or with a survey "
                "whose groups answered the same questions"
            )
        return known.select(np.flatnonzero(enough))

    def count_forms(self, sent: Arrays) -> Mapping[str, ArrayForm]:
        """Of each row, how many groups may train on it, unless it is known."""
        if CONTRIBUTORS in sent:
            return {}
        shape = (len(sent["mean"]),)
        return {CONTRIBUTORS: ArrayForm(np.dtype(np.float64), shape, 0, 1)}

    def counts(self, sent: Arrays, preferences: PreferenceSet) -> Arrays:
        """Which rows a group may train on."""
        train = split_questions(preferences, "train", self._settings.split).train
        answered = np.zeros(len(sent["mean"]))
        answered[preferences.select(train).rows] = 1.0
        return {CONTRIBUTORS: answered}

    def counted(self, state: State, totals: Arrays) -> State:
        """The state with the number of groups that have answered each row."""
        return State({**state.sent, CONTRIBUTORS: totals[CONTRIBUTORS]}, state.kept)

    def contribute(
        self, sent: Arrays, preferences: PreferenceSet, request: Request, memory: Path
    ) -> Contribution:
        """Infer the group's latent and its own deviations, and give its part of the sums."""
        known = self.known(sent, preferences)
        factors, kernel = self._unpacked.factors(sent), self._unpacked.kernel(sent)
        text = self._text.select(known.questions)
        answers = Answers.of(known.rows, text, known.shares, known.respondents, known.noise)
        prior = Latent.standard(factors.mean.shape[1] - 1)
        features = kernel.kept.get(
            known.rows.tobytes(), lambda: {"phi": kernel.first(OWN).features(text)}
        )
        part = contribution(factors, answers, features["phi"], prior)
        keeper = NodeMemory(memory / request.experiment, "sums")
        before = keeper.find(request.counted)
        keeper.keep(request.round, part.arrays(), request.counted)
        check = SelfCheck.of(
            self._others(sent, factors.of_rows(known.rows), known, before, request),
            kernel,
            answers,
            known.description,
            part,
            generator(self._settings.split.evaluation_seed, "self-check", known.group),
        )
        described = DescriptionSums.of(known.description, answers.text.dim, part.second)
        return Contribution(
            arrays={
                **part.sums(len(factors.mean)).pack(),
                **described.pack(),
                **check.arrays(),
            },
            weight=len(split_questions(preferences, "train", self._settings.split).train),
            metrics={"loss": check.loss, JS_DIVERGENCE: check.divergence},
        )

    def _others(
        self,
        sent: Arrays,
        factors: Factors,
        known: PreferenceSet,
        before: Mapping[str, NDArray[Any]] | None,
        request: Request,
    ) -> Others:
        """What was learned without the group; where that is not known, with it.

        Args:
            sent: by the server.
            factors: of the group's rows, from `sent`.
            known: the group's answers.
            before: the group's part of the last sums that it is in; None where it has none.
            request: of the server.
        """
        others = Others(factors, Regression.unpack(sent), honest=request.counted == 0)
        if before and request.options[ALL_LEARN] and request.counted == request.round - 1:
            part = Part.of(before)
            dim = len(others.regression.sums.inner) - 1
            mine = DescriptionSums.of(known.description, dim, part.second)
            return others.without(part, mine, sent["change"])
        return others

    def initial_state(self) -> State:
        """Small random loadings, drawn from the seed."""
        rng = generator(self._settings.federation.seed, "loadings")
        (rows, landmarks), width, dim = self._features.phi.shape, self._width, self._text.dim
        factors = first_factors(rows, width - 1, self._groups, landmarks, rng)
        regression = Regression.none(dim, width)
        judged = {name: np.zeros(shape) for name, shape in judged_shapes(width - 1).items()}
        return self._state(factors, regression, np.eye(width), judged, np.zeros(0))

    def _state(
        self,
        factors: Factors,
        regression: Regression,
        change: Doubles,
        judged: Mapping[str, Doubles],
        scores: Doubles,
    ) -> State:
        sent: dict[str, NDArray[Any]] = {
            **pack_factors(factors),
            **regression.pack(),
            "landmarks": self._kernel.landmarks,
            "change": change,
            "errors": judged["errors"],
        }
        return State(sent, {"scores": scores, **judged})

    def options(self) -> Mapping[str, float]:
        """Whether all groups learn in each round."""
        return {ALL_LEARN: float(not self._sampled)}

    def combine(
        self, round_number: int, state: State, contributions: Iterable[Contribution]
    ) -> State:
        """Add the sums up, in the order in which they come, and maximise."""
        total: dict[str, Doubles] = {}
        for each in contributions:
            total = {name: array + total.get(name, 0.0) for name, array in each.arrays.items()}
        if not total:
            raise FederationError(f"round {round_number}: no group contributed")
        kept = dict(state.kept)
        if not total["score"][1]:  # nobody judged: what was judged before holds
            total |= {name: kept.pop(name) for name in JUDGED}
        if round_number == 1:  # what was judged was no predictor yet
            total["errors"] = np.zeros_like(total["errors"])
        elif self._sampled:
            # A part 1 - n / G of the earlier sums stays, so that a group counts about once
            # (stepwise EM, Cappe and Moulines 2009, J. R. Stat. Soc. B 71:593).
            share = 1 - self._sampled / self._groups
            total = {name: array + share * kept.get(name, 0.0) for name, array in total.items()}
        sums, described = Sums.unpack(total), DescriptionSums.unpack(total)
        try:
            change = to_standard(sums)
            sums, described = sums.rotate(change), described.rotate(change)
            factors = maximise(unpack_factors(state.sent), sums, self._features)
        except np.linalg.LinAlgError as error:
            raise FederationError(
                f"round {round_number}: the sums that the groups sent give no factors ({error})"
            ) from error
        importance = (factors.mean[:, 1:] ** 2).mean(0)
        regression = Regression.fit(
            described, total["agreement"], total["described"][0], importance
        )
        score, groups = total["score"]
        scores = np.append(state.kept["scores"], [score / groups] if groups else [])
        judged = {name: total[name] for name in JUDGED}
        found = self._state(factors, regression, change, judged, scores)
        if CONTRIBUTORS in state.sent:
            found = self.counted(found, state.sent)
        if not all(np.isfinite(array).all() for array in {**found.sent, **found.kept}.values()):
            raise FederationError(
                f"round {round_number}: the sums that the groups sent give no finite factors"
            )
        if self._sampled:
            found = State(found.sent, {**found.kept, **sums.pack(), **described.pack()})
        return found

    def settled(self, state: State) -> bool:
        """Whether the groups' predictions of themselves no longer change.

        A sample of groups is no measure: each sample is another, and soon no group is new.
        """
        scores = state.kept["scores"]
        if self._sampled or len(scores) <= PATIENCE:
            return False
        return bool(np.ptp(scores[-PATIENCE - 1 :]) < SETTLED)

    def predictor(self, sent: Arrays, again: bool = True) -> FactorsPredictor:
        """The predictor with these factors; `again` where it is asked the same in every round."""
        prior = DescriptionPrior(sent["prior-weights"], sent["prior-variance"])
        calibration = Calibration.of(sent["errors"])
        factors = self._unpacked.factors(sent)
        kernel: TextKernel = self._unpacked.kernel(sent)
        if not again:
            kernel = TextKernel(kernel.landmarks)
        return FactorsPredictor(factors, kernel, calibration, prior, self._text)

    def work(self, sent: Arrays, groups: int) -> tuple[int, int]:
        """One step, in which each group counts as a task."""
        return 1, groups
