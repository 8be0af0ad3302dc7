"""Searches what a run sends, writes or prints for the survey's texts, shares and embeddings."""

import re

import numpy as np

from pluralllm_app.survey.prepared import PreparedSurvey

_DECIMALS = re.compile(rb"(?<![\d.])0?\.(\d{4,})")  # of a number from 0 to 1, as it is printed


class Answers:
    """What must stay with the groups of a survey; its shares must not be round numbers."""

    def __init__(self, survey: PreparedSurvey) -> None:
        questions = survey.questions()
        texts = [*questions.texts, *(text for own in questions.options for text in own)]
        self.texts = sorted({text[:12] for text in texts})  # however they are cut off
        self.embeddings = survey.embeddings
        self.groups = [survey.preferences(group.name) for group in survey.groups]
        self.shares = np.concatenate([group.shares for group in self.groups]).astype(np.float64)

    def found_in(
        self, content: bytes, *, weights: bool = False, questions: bool = False
    ) -> list[str]:
        """Say what of the answers is in some bytes.

        Args:
            content: the bytes.
            questions: what all groups share may be there, the questions and their vectors.
            weights: they are weights, among which a single share may occur by chance; a whole
                question's shares may not.
        """
        found = [text for text in self.texts if text.encode() in content and not questions]
        for kind in () if questions else (np.float16, np.float32, np.float64):
            rows = self.embeddings.astype(kind)
            found += [f"embedding {row}" for row in rows if row.tobytes() in content]
        for kind in (np.float32, np.float64):
            for group in self.groups:
                ends = np.cumsum(group.options)
                own = group.shares.astype(kind)
                found += [
                    f"shares {shares} of {group.group}"
                    for shares in np.split(own, ends[:-1])
                    if shares.tobytes() in content
                ]
            if not weights:
                singles = self.shares.astype(kind)
                found += [f"share {share}" for share in singles if share.tobytes() in content]
        return found + self._printed_in(content)

    def _printed_in(self, content: bytes) -> list[str]:
        """Shares that are printed, rounded or cut off: one with 7 decimals, two in turn with 4."""
        decimals = _DECIMALS.findall(content)
        if not decimals:
            return []
        numbers = np.array([float(b"0." + own) for own in decimals])
        steps = np.array([max(10.0 ** -len(own), 1e-7) for own in decimals])
        near = np.abs(numbers[:, None] - self.shares) <= steps[:, None]
        single = near.any(1) & (steps == 1e-7)
        pair = (near[:-1, :-1] & near[1:, 1:]).any(1)
        return [f"printed {own}" for own in (*numbers[single], *numbers[:-1][pair])]
