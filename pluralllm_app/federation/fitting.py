"""Whether nodes fit together: one survey, one version of the app, each group once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pluralllm_app.errors import FederationError
from pluralllm_app.federation.bounds import check
from pluralllm_app.federation.messages import NodeDescription, installed
from pluralllm_app.federation.registration import registered_questionnaire
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.shared import Questionnaire

SITE = "give it a site of the same survey"
OTHERS = "the others"


@dataclass(frozen=True)
class Known:
    """What is known of a survey before any node is asked, and who knows it."""

    fingerprint: str
    survey_questions: int
    dim: int
    metric: str
    whose: str = "the server's questionnaire"


def known_survey(place: Path | None) -> Known | None:
    """What the server of a deployment knows of the survey; None where it has no questionnaire.

    Args:
        place: the questionnaire that the run config names; None: that of the deployment.

    Raises:
        SurveyError: the questionnaire cannot be opened.
    """
    place = place or registered_questionnaire()
    if place is None:
        return None
    found = PreparedSurvey.open(place)
    return Known(found.fingerprint, len(found.questions().ids), found.dim, found.metric)


def fault_of(said: NodeDescription, known: Known | None) -> str | None:
    """What is impossible or unfit about what a node says, in words that follow its name."""
    here = installed()
    if fault := _impossible(said):
        return fault
    if said.version != here:
        return (
            f"has version {said.version!r}, the server {here!r}: install the same on every machine"
        )
    return _odd(said, known) if known else None


def of_most(described: Sequence[NodeDescription]) -> Known | None:
    """The survey of more than half of the nodes; None where no survey has so many."""
    surveys = [_survey(said) for said in described]
    [(survey, count)] = Counter(surveys).most_common(1)
    return Known(*survey, OTHERS) if 2 * count > len(surveys) else None


def check_agreement(described: Sequence[NodeDescription]) -> None:
    """Refuse nodes that do not fit together, and groups held twice.

    Raises:
        FederationError: naming the first group whose node has another survey than most have, is
            impossible or has another version than the server.
    """
    counts = Counter(map(_survey, described))
    known = Known(*counts.most_common(1)[0][0], OTHERS)
    for said in described:
        if fault := _odd(said, known) or fault_of(said, None):
            raise FederationError(f"the node of group {said.group!r} {fault}")
    for group, count in Counter(said.group for said in described).items():
        if count > 1:
            raise FederationError(
                f"{count} nodes hold group {group!r}: start one node for each group"
            )


def check_number(claimed: int, questionnaire: Questionnaire) -> None:
    """Raise FederationError where groups claim another number of questions than the server has."""
    known = len(questionnaire.questions.ids)
    if claimed != known:
        raise FederationError(
            f"the groups' nodes claim a survey of {claimed} questions, the server's has {known}: "
            "give every node a site of that survey"
        )


def _survey(said: NodeDescription) -> tuple[str, int, int, str]:
    return said.fingerprint, said.survey_questions, said.dim, said.metric


def _odd(said: NodeDescription, known: Known) -> str | None:
    for field in ("fingerprint", "survey_questions", "dim", "metric"):
        own, right = getattr(said, field), getattr(known, field)
        if own != right:
            return f"has {field} {own!r}, {known.whose} {right!r}: {SITE}"
    return None


def _impossible(said: NodeDescription) -> str | None:
    for field, value in (("survey_questions", said.survey_questions), ("dim", said.dim)):
        try:
            check("query", field, value)
        except ValueError as error:
            return f"describes an impossible survey: {error}"
    if said.role not in ("train", "evaluation"):
        return f"has unknown role {said.role!r}"
    if not 0 <= said.pool <= said.questions <= said.survey_questions:
        return (
            f"claims {said.questions} questions, {said.pool} of them to train on, of a survey of "
            f"{said.survey_questions}"
        )
    return None
