"""The groups that were asked about last, so that each is put together with the predictor once."""

import hashlib
import threading
import time
from collections import OrderedDict
from copy import copy

from pluralllm_app.serve.limits import GROUP_SECONDS, GROUPS
from pluralllm_app.serve.messages import Known, encoded
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
            UserError: see `Predictor.group`.
        """
        key = hashlib.sha256(encoded([known.answers, known.description])).digest()
        with self._lock:
            group, _ = self._kept.pop(key, (None, 0.0))
        if group is None:
            answers: dict[str | Question, Numbers] = dict(known.answers.items())
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
