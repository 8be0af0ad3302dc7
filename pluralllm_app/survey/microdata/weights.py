"""How much each person counts, and a line that shows whether this is as it was meant."""

from dataclasses import dataclass, field

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.files import Microdata, People
from pluralllm_app.survey.microdata.grouping import Grouping
from pluralllm_app.survey.microdata.variables import number_of

MOST_DIGITS = 12  # of a weight; the squares of others may not be finite


@dataclass
class Weights:
    """The weights of the people of a file, and what of them has been seen so far."""

    data: Microdata
    column: str | None  # None: all people count alike
    people: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [G] counted so far
    lowest: float = np.inf
    highest: float = 0.0
    _labelled: bool = True  # whether each of them has a label

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        return [] if self.column is None else [self.column]

    def of(self, people: People) -> Doubles:
        """Return the weight of each person [n], NaN for none.

        Raises:
            SurveyError: one is negative, or too large or small to be a weight.
        """
        if self.column is None:
            return np.ones(people.size)
        weights: Doubles = people.numbers[self.column]
        most = np.abs(np.log10(weights, where=weights > 0, out=np.zeros_like(weights)))
        wrong = np.flatnonzero((weights < 0) | (most > MOST_DIGITS))
        if len(wrong):
            raise SurveyError(
                f"{self.data.file}: {self.column} is {weights[wrong[0]]:g} in data row "
                f"{people.first + wrong[0] + 1}: a weight is 0, or from 1e-{MOST_DIGITS} to "
                f"1e{MOST_DIGITS}: name another or mend it"
            )
        return weights

    def note(self, weights: Doubles, group: Ints) -> None:
        """Note the weights [n] of people that are counted, and the group of each."""
        if not len(weights):
            return
        people = np.bincount(group, minlength=len(self.people))
        people[: len(self.people)] += self.people
        self.people = people
        self.lowest = min(self.lowest, float(weights.min()))
        self.highest = max(self.highest, float(weights.max()))
        self._labelled &= bool(np.isin(weights, list(self._labels())).all())

    def check(self) -> None:
        """Raise SurveyError if the column holds the codes of something else."""
        labels = self._labels()
        if labels and self._labelled and len(self.people):
            shown = ", ".join(f"{code:g} {label!r}" for code, label in sorted(labels.items())[:3])
            raise SurveyError(
                f"{self.data.file}: each value of {self.column} has a label ({shown}), so these "
                "are codes and no weights: name another column, or pass --weight none if all "
                "people count alike"
            )

    def said(self, grouping: Grouping, fewest: float, most: float) -> str:
        """Return whom the shares are of, to compare with what is known of the file.

        Args:
            grouping: the groups that were counted.
            fewest: effective respondents of an answer.
            most: of another.
        """
        names, people = grouping.names, many(int(self.people.sum()), "person", "people")
        if len(names) == 1:
            who = f"{people} of {names[0]!r}"
        else:
            who = f"{people} of {many(len(names), 'group')}"
            who += f" (from {self.people.min():,} to {self.people.max():,} each)"
        who += f" by {', '.join(grouping.by)}" if grouping.by else ", all of the file"
        weighted = (
            "each counts alike"
            if self.column is None
            else f"weighted by {self.column} (from {self.lowest:.3g} to {self.highest:.3g})"
        )
        return f"{who}; {weighted}; effective respondents from {fewest:,.0f} to {most:,.0f}"

    def _labels(self) -> dict[float, str]:
        if self.column is None:
            return {}
        variable = self.data.dictionary.variables[self.column]
        numbers = {number_of(code): label for code, label in variable.labels.items()}
        return {number: label for number, label in numbers.items() if number is not None}
