"""Latent factors, learned by sums: groups infer what is theirs, the server adds up and maximises.

A round is one step of variational Bayes, see `learning.sums`. The server needs of a contribution
only its part of the sums; in the clear it gives the group's answers away, see docs/privacy.md.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from pluralllm_app.core.divergence import js_divergence
from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import FederationError
from pluralllm_app.learning.base import ArrayForm, Contribution, Form, Request, State
from pluralllm_app.learning.sums import (
    Sums,
    contribution,
    first_factors,
    maximise,
    to_standard,
)
from pluralllm_app.predictors.base import Arrays, Prediction
from pluralllm_app.predictors.factors.model import Answers, Latent, fitted
from pluralllm_app.predictors.factors.predictor import (
    FactorsPredictor,
    option_rows,
    pack_factors,
    pack_symmetric,
    unpack_factors,
    unpack_symmetric,
)
from pluralllm_app.predictors.factors.text_kernel import OptionRows, TextKernel
from pluralllm_app.preferences import PreferenceSet, QuestionSet, split_questions
from pluralllm_app.scoring.evaluation import negative_log_likelihood
from pluralllm_app.settings import Settings

MOST_FACTORS = 12
LANDMARKS = 300  # of the text kernel, for the prior of offsets and loadings
OWN = 100  # of these, the first ones, for what is a group's own
REVEALED = (
    "Note: with predictor = factors each group sends its sums in the clear, and who reads them can "
    "work out its answers. Use it where the server may know them, see docs/privacy.md."
)
_PACKED = ("gram", "latent")


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
        self._settings = settings
        self._questions = questions
        self._train_groups = train_groups

    @cached_property
    def _text(self) -> OptionRows:
        return option_rows(self._questions())

    @cached_property
    def _kernel(self) -> TextKernel:
        return TextKernel.fit(self._text, LANDMARKS)

    @cached_property
    def _features(self) -> Doubles:
        """[R, M] of all option rows of the survey."""
        return self._kernel.features(self._text)

    @property
    def _width(self) -> int:
        """J: an offset, and as many loadings as there can be factors."""
        assert self._train_groups is not None, "a group's half has no size of its own"
        return 1 + max(0, min(MOST_FACTORS, self._train_groups - 1))

    @cached_property
    def form(self) -> Form:
        """The sums, see `Sums`; symmetric matrices are sent as their upper triangles."""
        rows, width = len(self._text), self._width
        upper = width * (width + 1) // 2
        number = np.dtype(np.float64)
        arrays = {
            "groups": ArrayForm(number, (1,), 1, 1),
            "answered": ArrayForm(number, (rows,), 0, 1),
            "cross": ArrayForm(number, (rows, width)),
            "gram": ArrayForm(number, (rows, upper)),
            "latent": ArrayForm(number, (upper,)),
            "residual": ArrayForm(number, (3,), 0),
            "own": ArrayForm(number, (2,), 0),
        }
        return Form(arrays, {"loss": -np.inf, "js-divergence": 0.0})

    def contribute(
        self, sent: Arrays, preferences: PreferenceSet, request: Request, memory: Path
    ) -> Contribution:
        """Infer the group's latent and its own deviations, and give its part of the sums."""
        train = split_questions(preferences, "train", self._settings.split).train
        known = preferences.select(train)
        factors = unpack_factors(sent)
        text = OptionRows(self._text.directions[known.rows], known.options)
        answers = Answers.of(known.rows, text, known.shares)
        prior = Latent.standard(factors.mean.shape[1] - 1)
        features = self._features[known.rows, :OWN]
        sums, posterior = contribution(factors, answers, features, prior)
        belief = fitted(factors, answers, features, posterior)
        divergence = js_divergence(belief.shares, known.shares, known.options)
        loss = negative_log_likelihood([Prediction(belief.shares, belief.deviation)], known.shares)
        assert loss is not None
        return Contribution(
            arrays={
                name: pack_symmetric(array) if name in _PACKED else array
                for name, array in sums.arrays().items()
            },
            weight=len(train),
            metrics={"loss": loss, "js-divergence": float(divergence.mean())},
        )

    def initial_state(self) -> State:
        """Small random loadings, drawn from the seed."""
        rng = generator(self._settings.federation.seed, "loadings")
        rows, landmarks = self._features.shape
        return State(pack_factors(first_factors(rows, self._width - 1, landmarks, rng)))

    def options(self) -> Mapping[str, float]:
        """There are none."""
        return {}

    def combine(
        self, round_number: int, state: State, contributions: Iterable[Contribution]
    ) -> State:
        """Add the sums up, in the order in which they come, and maximise."""
        total: Sums | None = None
        for each in contributions:
            unpacked = {
                name: unpack_symmetric(array) if name in _PACKED else array
                for name, array in each.arrays.items()
            }
            part = Sums(**unpacked)
            total = part if total is None else total + part
        if total is None:
            raise FederationError(f"round {round_number}: no group contributed")
        standard = total.rotate(to_standard(total))
        factors = maximise(unpack_factors(state.sent), standard, self._features)
        packed = pack_factors(factors)
        if not all(np.isfinite(array).all() for array in packed.values()):
            raise FederationError(
                f"round {round_number}: the sums that the groups sent give no finite factors"
            )
        return State(packed)

    def predictor(self, sent: Arrays) -> FactorsPredictor:
        """The predictor with these factors."""
        return FactorsPredictor(unpack_factors(sent), self._kernel)

    def work(self, groups: int) -> tuple[int, int]:
        """One step, in which each group counts as a task."""
        return 1, groups
