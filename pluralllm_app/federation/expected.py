"""What a group's replies may say, by what the roster knows of it."""

from dataclasses import replace

from flwr.app import RecordDict

from pluralllm_app.federation.messages import Evaluation, Update
from pluralllm_app.federation.roster import Roster
from pluralllm_app.federation.secure_server import SecureSums
from pluralllm_app.learning.base import Form
from pluralllm_app.settings import Settings


class Expected:
    """Reads replies, each of which raises ValueError where it is not good.

    Args:
        roster: of the run.
        settings: of the run.
        sums: take masked contributions; None where contributions are not masked.
    """

    def __init__(self, roster: Roster, settings: Settings, sums: SecureSums | None) -> None:
        self._roster = roster
        self._sums = sums
        self._context = settings.evaluation.evaluation_context
        self._longest = settings.federation.round_timeout  # seconds that a reply can have taken

    def update(self, form: Form, name: str, content: RecordDict) -> Update:
        """A group's answer to a train message, whose contribution has this form."""
        found = Update.from_content(content, form, self._roster.groups[name].pool)
        if self._sums:
            self._sums.add(name, found.contribution.arrays)
        return replace(found, seconds=min(found.seconds, self._longest))

    def evaluation(self, name: str, content: RecordDict) -> Evaluation:
        """How a group scored what it was sent."""
        total = self._roster.survey.survey_questions
        found = Evaluation.from_content(content, self._scored(name), total)
        return replace(found, seconds=min(found.seconds, self._longest))

    def _scored(self, name: str) -> range:
        """How many questions a group may be scored on; a train group: those not trained on."""
        group = self._roster.groups[name]
        if group.role == "train":
            return range(group.questions - group.pool, group.questions - group.pool + 1)
        return range(group.questions - self._context, group.questions + 1)
