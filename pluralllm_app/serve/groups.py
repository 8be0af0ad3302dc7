"""The groups that were asked about last, so that each is put together with the predictor once."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy

from pluralllm_app.errors import AnswersError
from pluralllm_app.serve.limits import GROUP_SECONDS, GROUPS, NEW_OPTIONS, NEW_QUESTIONS
from pluralllm_app.serve.messages import Known, Refused, encoded
from pluralllm_app.use.given import Numbers
from pluralllm_app.use.group import Group
from pluralllm_app.use.predictor import Predictor
from pluralllm_app.use.questions import Question


class Groups:
    """Groups by what is known of them; the least recently used one goes where there are too many.

    A request carries the group's answers, and nothing of them is kept for longer than
    `GROUP_SECONDS`. Its threads may share it.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._kept: OrderedDict[bytes, tuple[Group, float]] = OrderedDict()
        self._lock = threading.Lock()

    def group(self, known: Known) -> Group:
        """The group of which this is known, with notes of its own.

        Raises:
            Refused: more new questions than a request may bring, or one without options.
            UserError: see `Predictor.group`.
        """
        by_option = self._checked(known)
        key = hashlib.sha256(encoded([known.answers, known.description, known.new])).digest()
        with self._lock:
            group, _ = self._kept.pop(key, (None, 0.0))
        if group is None:
            answers: dict[str | Question, Numbers] = {
                Question(text, [*by_option[text]]) if text in known.new else text: numbers
                for text, numbers in known.answers.items()
            }
            group = self._predictor.group(answers, known.description)
            _ = group.conditioned  # computed here, so that each copy has it
        with self._lock:
            self._kept[key] = group, time.monotonic()
            while len(self._kept) > GROUPS:
                self._kept.popitem(last=False)
        # Predicting adds notes to a group: those of one request are no other's business.
        own = copy(group)
        own.notes = list(group.notes)
        return own

    def _checked(self, known: Known) -> dict[str, dict[str, float]]:
        """The answers whose numbers are by option."""
        by_option = {
            text: numbers for text, numbers in known.answers.items() if isinstance(numbers, dict)
        }
        if unanswered := [text for text in known.new if text not in by_option]:
            raise Refused(422, f"new: there are no answers by option to {unanswered[0]!r}")
        new = [
            [*numbers]
            for text, numbers in by_option.items()
            if text in known.new or not self._has(text)
        ]
        check_new(new, "answers")
        return by_option

    def _has(self, question: str) -> bool:
        try:
            return self._predictor.survey.catalogue.find(question, None, []) is not None
        except AnswersError:  # several questions of the survey have this text
            return True

    def forget(self) -> None:
        """Drop the groups that were not asked for lately, and the vectors of new texts."""
        self._predictor.texts.forget()
        oldest = time.monotonic() - GROUP_SECONDS
        with self._lock:
            self._kept = OrderedDict(
                (key, (group, used)) for key, (group, used) in self._kept.items() if used >= oldest
            )

    def __len__(self) -> int:
        return len(self._kept)


def check_new(options: Sequence[Sequence[str]], what: str) -> None:
    """Refuse more questions, by their options, than one request may bring beside the survey's.

    Raises:
        Refused: 422, naming `what` has them.
    """
    if len(options) > NEW_QUESTIONS or sum(map(len, options)) > NEW_OPTIONS:
        raise Refused(
            422,
            f"{what}: one request may bring {NEW_QUESTIONS} new questions with {NEW_OPTIONS} "
            "options in all: send several, and name questions of the survey by their ids",
        )
