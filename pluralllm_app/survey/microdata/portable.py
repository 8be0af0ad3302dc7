"""What SPSS's portable files (.por) do not tell: which empty cells are user-defined missing values.

The library that reads them gives both as nothing. So a share that would need to know is refused,
since it would be wrong in silence; people who are left out all the same lose their reason only.
"""

from pathlib import Path

import numpy as np

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.microdata.files import People
from pluralllm_app.survey.microdata.mapping import Map

NOTE = "user-defined missing values of a .por file count as empty cells"
_REMEDY = (
    "a .por file is read without its user-defined missing values, which count as empty cells: save "
    "it as .sav"
)


class Lost:
    """Watches whether a map needs what a file does not tell; any file but a .por tells all.

    Args:
        file: with the people.
        mapped: its map.

    Raises:
        SurveyError: the map has a set of variables, in which an empty cell may say "no".
    """

    def __init__(self, file: Path, mapped: Map) -> None:
        self._file = file
        self._single = [own for own in mapped.questions if not own.is_set] if self.here else []
        self._seen: dict[str, set[str]] = {name: set() for name in mapped.variables}
        self._empty: set[str] = set()
        for own in mapped.questions if self.here else ():
            if own.is_set:
                raise SurveyError(
                    f"{file}: {own.id!r} of {mapped.file} is of a set of variables, but {_REMEDY}"
                )

    @property
    def here(self) -> bool:
        """Whether the file is of this kind."""
        return self._file.suffix.lower() == ".por"

    def add(self, people: People) -> None:
        """Look at a batch, whichever groups its people are of."""
        for name, (places, texts) in people.codes.items() if self.here else ():
            if name in self._seen:
                self._seen[name].update(texts)
                if np.any(places < 0):
                    self._empty.add(name)

    def check(self) -> None:
        """Raise SurveyError where nobody has an option, and empty cells may have been it."""
        for own in self._single:
            [name] = own.variables
            for code, place in own.places.items() if name in self._empty else ():
                if code not in self._seen[name]:
                    raise SurveyError(
                        f"{self._file}: nobody has {name} = {code} ({own.options[place]!r}), which "
                        f"the file may declare to be missing, and {_REMEDY}, or leave the code out"
                    )
