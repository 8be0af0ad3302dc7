"""What groups' replies may say, by what the roster knows of them, and what their scores say."""

from dataclasses import replace

from flwr.app import RecordDict

from pluralllm_app.federation.heard import Heard
from pluralllm_app.federation.messages import Evaluation, MaskedScores, Update
from pluralllm_app.federation.roster import Roster
from pluralllm_app.federation.secure_scores import ScoreSums
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.learning.base import Form
from pluralllm_app.scoring.results import EvaluationResult, summarise
from pluralllm_app.settings import Settings


class Expected:
    """Reads replies, each of which raises ValueError where it is not good.

    Args:
        roster: of the run.
        settings: of the run.
        sums: take masked contributions; None where contributions are not masked.
        scores: take masked scores; None where scores are not masked.
    """

    def __init__(
        self, roster: Roster, settings: Settings, sums: SecureSums | None, scores: ScoreSums | None
    ) -> None:
        self._roster = roster
        self._sums = sums
        self._scores = scores
        self._split = settings.split
        self._context = settings.evaluation.evaluation_context
        self._longest = settings.federation.round_timeout  # seconds that a reply can have taken

    def update(self, form: Form, name: str, content: RecordDict) -> Update:
        """A group's answer to a train message, whose contribution has this form."""
        found = Update.from_content(content, form, self._roster.groups[name].pool)
        if self._sums:
            self._sums.add(name, found.contribution.arrays)
        return replace(found, seconds=min(found.seconds, self._longest))

    def evaluation(self, name: str, content: RecordDict) -> Evaluation | MaskedScores:
        """How a group scored what it was sent."""
        if self._scores:
            masked = MaskedScores.from_content(content)
            self._scores.add(name, masked)
            return replace(masked, seconds=min(masked.seconds, self._longest))
        total = self._roster.survey.survey_questions
        found = Evaluation.from_content(content, self._scored(name), total)
        return replace(found, seconds=min(found.seconds, self._longest))

    def result(self, heard: Heard) -> EvaluationResult | None:
        """How all groups scored it; None where none did, or none were asked.

        Where scores are summed, the sums are opened, and groups that are lost are told to `heard`.
        """
        if self._scores:
            return self._scores.result(heard)
        known = heard.evaluations
        roles = {name: group.role for name, group in self._roster.groups.items()}
        return summarise(known, roles, self._split) if known else None

    def _scored(self, name: str) -> range:
        """How many questions a group may be scored on; a train group: those not trained on."""
        group = self._roster.groups[name]
        if group.role == "train":
            return range(group.questions - group.pool, group.questions - group.pool + 1)
        return range(group.questions - self._context, group.questions + 1)
