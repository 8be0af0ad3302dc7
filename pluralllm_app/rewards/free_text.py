"""Which option a free text is nearest to, by the survey's embedder."""

import numpy as np

from pluralllm_app.core.names import clean_text
from pluralllm_app.errors import PredictorError
from pluralllm_app.rewards.counts import LONG, NONE, SCORED, SEVERAL
from pluralllm_app.use.prompts import MOST_CHARACTERS, spoken
from pluralllm_app.use.questions import Question
from pluralllm_app.use.survey import Survey

AMBIGUOUS = 0.98  # of 1: a text that fits no option is about as far from all of them


class FreeText:
    """Embeds completions as if they were options of their question."""

    def __init__(self, survey: Survey) -> None:
        """Prepare to embed.

        Raises:
            PredictorError: the survey's embedder cannot be had here.
        """
        self._survey = survey
        try:
            survey.embedded([Question("Which?", ["This", "That"])])
        except PredictorError as error:
            raise PredictorError(f"rewards of free texts embed them: {error}") from error

    def nearest(self, completion: str, question: Question) -> tuple[int | None, float | None, str]:
        """The option that a completion is nearest to.

        Returns:
            Its place, how ambiguous that is, and what to count. The ambiguity is the distance to
            this option over that to the next one: 0 where it is the option's very text. From
            `AMBIGUOUS` on the text names both, and neither of them alone.
        """
        whole = spoken(completion).encode("utf-8", "ignore").decode()  # without half characters
        text = clean_text(whole)
        if not text:
            return None, None, NONE
        if len(text) > MOST_CHARACTERS:
            return None, None, LONG
        if text in question.options:
            return question.options.index(text), 0.0, SCORED
        each, alone = self._survey.embedded([question, Question(question.text, [text])])
        distances = np.linalg.norm(each.astype(np.float64) - alone.astype(np.float64), axis=1)
        first, second = np.argsort(distances, kind="stable")[:2]
        ambiguity = float(distances[first] / distances[second]) if distances[second] else 1.0
        if ambiguity >= AMBIGUOUS:
            return None, ambiguity, SEVERAL
        return int(first), ambiguity, SCORED
