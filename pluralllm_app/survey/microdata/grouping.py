"""Which group a person belongs to, by one or several columns of the file."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pluralllm_app.core.names import clean_text, look
from pluralllm_app.core.segments import Ints
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.fitting import refuse_twins
from pluralllm_app.survey.microdata.files import Microdata, People
from pluralllm_app.survey.microdata.profiles import load_profile
from pluralllm_app.survey.microdata.variables import Variable, number_of

MOST = 10_000  # groups; more are the values of some other column
NO_GROUP, OTHER_GROUP = -1, -2


@dataclass
class Grouping:
    """The groups that have occurred so far, in the order of their first person."""

    data: Microdata
    by: Sequence[str]  # columns; none: all people are of one group
    only: str | None  # the one group that is counted; None: all
    names: list[str] = field(default_factory=list)  # of the groups that are counted
    others: set[str] = field(default_factory=set)  # of those that are not
    _unlabelled: dict[tuple[str, str], int] = field(default_factory=dict)  # the first row of each

    def __post_init__(self) -> None:
        """Write the one group as groups are written."""
        self.only = None if self.only is None else clean_text(self.only)

    def of(self, people: People) -> Ints:
        """Return the group of each person [n], NO_GROUP or OTHER_GROUP."""
        if not self.by:
            self._number(str(self.only))
            return np.zeros(people.size, np.int64)
        texts, columns = [], []
        for name in self.by:
            places, codes = people.codes[name]
            self._note_unlabelled(name, places, codes, people.first)
            variable = self.data.dictionary.variables[name]
            texts.append([*(_name(variable, code) for code in codes), ""])
            columns.append(places)
        different, inverse = np.unique(np.stack(columns), axis=1, return_inverse=True)
        groups = [
            self._number_of([own[at] for own, at in zip(texts, places, strict=True)])
            for places in different.T.tolist()
        ]
        if len(self.names) + len(self.others) > MOST:
            raise SurveyError(
                f"{self.data.file}: {', '.join(self.by)} has more than {MOST:,} values, so it is "
                "hardly a column of groups: name another one"
            )
        return np.array(groups, np.int64)[inverse.ravel()]

    def check(self) -> None:
        """Refuse what may split or merge groups.

        Raises:
            SurveyError: a code has no label where others have one, two names look alike, a column
                has both numbers and names, or nobody is in the one group.
        """
        place = f"{self.data.file}: {', '.join(self.by)}"
        for (column, code), row in self._unlabelled.items():
            raise SurveyError(
                f"{self.data.file}: {column} has the code {code} without a label, first in data "
                f"row {row + 1}: which group is it? Give it a label, or name another column"
            )
        every = sorted({*self.names, *self.others})
        seen: dict[str, str] = {}
        for name in every:
            refuse_twins(name, [seen.setdefault(look(name), name)], place)
        numbers = [name for name in every if number_of(name) is not None]
        if len(self.by) == 1 and 0 < len(numbers) < len(every):
            words = next(name for name in every if number_of(name) is None)
            raise SurveyError(
                f"{place} has numbers, as {numbers[0]!r}, and names, as {words!r}: one group may "
                "be there under both, so write all of them in one way"
            )
        if self.by and not self.names:
            if self.only is None:
                raise SurveyError(f"{place} is empty: nobody belongs to any group")
            near = did_you_mean(self.only, self.others)
            raise SurveyError(f"{place}: nobody is of group {self.only!r}: {near}")

    def _number_of(self, names: Sequence[str]) -> int:
        if not all(names):
            return NO_GROUP
        name = ", ".join(names)
        if self.only not in (None, name):
            self.others.add(name)
            return OTHER_GROUP
        return self._number(name)

    def _number(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def _note_unlabelled(self, column: str, places: Ints, codes: Sequence[str], first: int) -> None:
        variable = self.data.dictionary.variables[column]
        for at, code in enumerate(codes if variable.labels else ()):
            if code not in variable.labels and not variable.is_missing(code):
                row = first + int(np.argmax(places == at))
                self._unlabelled.setdefault((column, code), row)


def _name(variable: Variable, code: str) -> str:
    """Return the name of a group, "" if the code says of none."""
    label = variable.labels.get(code, "")
    if variable.is_missing(code) or load_profile(None).reason(code, label):
        return ""
    return label or clean_text(code)
