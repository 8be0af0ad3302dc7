"""The learners there are, by the names that the settings `predictor` and `prior` give.

To add one: its module, and an entry of LEARNERS, or of PRIORS if it is one on top of another. A
learner's module is imported when the learner is made, since importing torch takes longer than a
round of a learner that does without.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pluralllm_app.errors import SettingsError
from pluralllm_app.learning.base import Learner, Strategy
from pluralllm_app.preferences import QuestionSet
from pluralllm_app.settings import Scalar, Settings, check_choice


@dataclass(frozen=True)
class Given:
    """What a learner, or one half of it, is made from."""

    settings: Settings
    dim_x: int  # width of the survey's embeddings
    questions: Callable[[], QuestionSet]  # all of the survey's; called if the learner needs them
    strategy: Strategy | None = None  # of the server; None for a group's half
    train_groups: int | None = None  # how many there are; None for a group's half
    device: str = "cpu"  # where this half computes


@dataclass(frozen=True)
class LearnerSpec:
    """A learner that runs can have."""

    make: Callable[[Given], Learner]
    demands: Mapping[str, Scalar] = field(default_factory=dict)
    """Settings among `FederationSettings` that must have these values, by their names in files."""
    reason: str = ""  # why it demands them
    needs_questions: bool = False  # whether its server works with the text of the questions
    caution: str = ""  # what must be known before such a run
    with_torch: bool = True  # whether it computes with torch, and so on a device


def _gpo(given: Given) -> Learner:
    from pluralllm_app.learning.gpo import GPOLearner

    return GPOLearner(given.settings, given.dim_x, given.strategy, given.device)


def _factors(given: Given) -> Learner:
    from pluralllm_app.learning.factors import FactorsLearner

    return FactorsLearner(given.settings, given.questions, given.train_groups)


def _refined(given: Given) -> Learner:
    from pluralllm_app.learning.factors import FactorsLearner
    from pluralllm_app.learning.refined import RefinedLearner

    factors = FactorsLearner(given.settings, given.questions, given.train_groups)
    return RefinedLearner(given.settings, given.dim_x, factors, given.strategy, given.device)


_CLEAR = (
    "Note: with {} = factors each group sends its sums in the clear, and who reads them can work "
    "out its answers. Use it where the server may know them, or set privacy = 'secure-sum', see "
    "docs/privacy.md."
)
_NOISED = (
    "Note: train groups' answers have noise: what one respondent of one group answered is hidden "
    "by differential privacy with epsilon = {:g} and delta = {:g}, over the whole run. Who is in "
    "several groups pays for each, and a simulation draws anew for each run. Train groups are "
    "scored on noised answers, groups for evaluation on their true ones, see docs/privacy.md."
)
_HALVES = (
    "Note: with scores = 'mean' and reserved questions a group's score is the mean of two, over "
    "reserved questions and over all others. With scores = 'per-group' each question counts alike, "
    "so scores of such runs are not comparable with those of this one."
)
_NOISED_SUMS = (
    "Note: sums of updates have noise: all that one train group answered is hidden by differential "
    "privacy with epsilon = {:g} and delta = {:g}, over the whole run. Groups for evaluation are "
    "scored on their true answers. With tens of groups little can be learned, see docs/privacy.md."
)
LEARNERS = {
    "gpo": LearnerSpec(_gpo),
    "factors": LearnerSpec(
        _factors,
        {"strategy": "fedavg", "weighting": "questions"},
        "factors are learned by plain sums over groups",
        needs_questions=True,
        caution=_CLEAR.format("predictor"),
        with_torch=False,
    ),
}
PRIORS = {  # by predictor and prior
    ("gpo", "factors"): LearnerSpec(_refined, needs_questions=True, caution=_CLEAR.format("prior")),
}


def _spec(predictor: Scalar, prior: Scalar) -> LearnerSpec | None:
    name = str(predictor)
    return LEARNERS.get(name) if prior == "none" else PRIORS.get((name, str(prior)))


def check_learner(settings: Settings) -> None:
    """Check that there is such a learner, and that it takes the settings.

    Raises:
        SettingsError: naming the setting and the remedy.
    """
    name, prior = settings.federation.predictor, settings.federation.prior
    check_choice("predictor", name, LEARNERS)
    spec = _spec(name, prior)
    if spec is None:
        with_prior = ", ".join(repr(each) for each, other in PRIORS if other == prior)
        raise SettingsError(
            f"prior = {prior!r} does not go with predictor = {name!r}: it is for predictor = "
            f"{with_prior}, set prior = 'none'"
        )
    for key, wanted in spec.demands.items():
        value = getattr(settings.federation, key.replace("-", "_"))
        if value != wanted:
            raise SettingsError(
                f"{key} = {value!r} does not go with predictor = {name!r}: {spec.reason}, set "
                f"{key} = {wanted!r}"
            )


def check_plain(settings: Settings) -> None:
    """Check that the settings choose no learner, for commands whose methods do.

    Raises:
        SettingsError: naming the setting and the remedy.
    """
    if settings.federation.noise != "none":
        raise SettingsError(
            f"noise = {settings.federation.noise!r} is for pluralllm run: here methods pool the "
            "answers of all groups, without noise. Set noise = 'none' and epsilon = 0"
        )
    for key, plain in (("predictor", "gpo"), ("prior", "none")):
        value = getattr(settings.federation, key)
        if value != plain:
            raise SettingsError(
                f"{key} = {value!r} is for pluralllm run: here each method says itself what is "
                f"learned, so leave {key} out (pluralllm compare has the methods factors and "
                "refined)"
            )


def make_learner(given: Given) -> Learner:
    """The learner of a run whose settings are checked, or one half of it."""
    spec = _spec(given.settings.federation.predictor, given.settings.federation.prior)
    assert spec is not None, "the settings are checked"
    return spec.make(given)


def with_torch(settings: Settings) -> bool:
    """Whether the learner of a run whose settings are checked computes with torch."""
    spec = _spec(settings.federation.predictor, settings.federation.prior)
    assert spec is not None, "the settings are checked"
    return spec.with_torch


def needs_questions(config: Mapping[str, Scalar]) -> bool:
    """Whether the server of a run with this config needs the text of the questions."""
    spec = _spec(config["predictor"], config["prior"])
    return spec is not None and spec.needs_questions


def caution(settings: Settings) -> str:
    """What must be known before such a run; empty where nothing must."""
    halves = settings.federation.scores == "mean" and settings.split.reserved_fraction > 0
    return "\n".join(filter(None, [_of_privacy(settings), _HALVES if halves else ""]))


def _of_privacy(settings: Settings) -> str:
    federation = settings.federation
    if federation.noise == "respondents":
        return _NOISED.format(federation.epsilon, federation.delta)
    if federation.noise == "groups":
        return _NOISED_SUMS.format(federation.epsilon, federation.delta)
    if federation.privacy != "none":
        return ""
    spec = _spec(settings.federation.predictor, settings.federation.prior)
    return spec.caution if spec else ""
