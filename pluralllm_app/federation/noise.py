"""Which answers a node works with: those of a train group with noise, where a run has that.

It is the one way to a group's answers, so that nothing that leaves can come from others.
"""

from functools import partial
from pathlib import Path

from pluralllm_app.core.locks import held
from pluralllm_app.errors import FederationError
from pluralllm_app.federation.ledger import Draw, spend
from pluralllm_app.federation.policy import Policy
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.kept import KeptNoise
from pluralllm_app.privacy.respondents import Mechanism
from pluralllm_app.settings import Settings
from pluralllm_app.survey.content import Influence
from pluralllm_app.survey.info import Group
from pluralllm_app.survey.prepared import PreparedSurvey

_WAIT_SECONDS = 60.0


def usable_answers(
    survey: PreparedSurvey,
    group: Group,
    true: PreferenceSet,
    memory: Path,
    node: Path | None,
    settings: Settings,
) -> PreferenceSet:
    """The answers of a group that a run may learn from and score.

    Those of a group for evaluation are the true ones: it is scored, and nobody learns from it.

    Args:
        survey: of the node.
        group: that the node holds.
        true: its answers.
        memory: of the group, where noised answers are kept and found again.
        node: of a deployment, whose ledger counts the noise and whose policy limits it.
        settings: of the run.

    Raises:
        RefusedError: the policy does not let it.
        FederationError: it is not known how much a respondent can change; or noised answers that
            were kept are damaged, or new ones cannot be kept.
    """
    if group.role != "train":
        if node:
            Policy.read(node).check_true_answers()
        return true
    federation = settings.federation
    if federation.noise != "respondents":
        return true
    influence = known_influence(survey, group.name)
    epsilon, delta = federation.epsilon, federation.delta
    mechanism = Mechanism.of(influence, true.options, epsilon, delta)
    draw = Draw("respondents", mechanism.rho, epsilon, delta)
    kept = KeptNoise.of(memory, mechanism, true)
    memory.mkdir(parents=True, exist_ok=True)
    with held(memory / ".noise.lock", "another process of this node draws noise", _WAIT_SECONDS):
        noised = kept.draw_once(
            partial(mechanism.draw, true),
            lambda name: spend(node, name, draw) if node else None,
        )
    return mechanism.readable(true, noised)


def known_influence(survey: PreparedSurvey, group: str) -> Influence:
    """How much one respondent can change of a group's answers.

    Raises:
        FederationError: it is not known.
    """
    influence = survey.influence(group)
    if influence is None:
        raise FederationError(
            f"noise = respondents, but what is known of group {group!r} does not say how much one "
            "respondent can change its answers: make its site again, or prepare the survey again, "
            "from files with one row per person or from tables with a count of people for each "
            "option"
        )
    return influence
