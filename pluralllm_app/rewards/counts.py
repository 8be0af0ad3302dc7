"""How many completions were scored, and why the others were not."""

from collections import Counter
from collections.abc import Iterable

from pluralllm_app.core.wording import many

SCORED = "scored"
NONE = "name no option"
SEVERAL = "name several options"
LONG = "are too long to be an answer"
UNASKED = "are of prompts without a question"
UNANSWERED = "are of questions that too few groups answered"
_WHY = (NONE, SEVERAL, LONG, UNASKED, UNANSWERED)


class Counts(Counter[str]):
    """Completions by what became of them: `SCORED`, or the reason why they were not."""

    @property
    def unscored(self) -> int:
        return self.total() - self[SCORED]

    def add(self, reasons: Iterable[str]) -> "Counts":
        """Count further completions, and return the counts of these alone."""
        new = Counts(reasons)
        self.update(new)
        return new

    def __str__(self) -> str:
        reasons = [f"{self[why]:,} {why}" for why in _WHY if self[why]]
        text = f"{many(self.total(), 'completion')}, {self[SCORED]:,} scored"
        return text + (f"; not scored: {', '.join(reasons)}" if reasons else "")
