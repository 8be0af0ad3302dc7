"""Files of noised answers."""

from pathlib import Path

import numpy as np
import pytest

from pluralllm_app.core.segments import Ints
from pluralllm_app.errors import FederationError
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.privacy.kept import KeptNoise
from pluralllm_app.privacy.respondents import Mechanism
from pluralllm_app.survey.content import Influence
from tests.support.preferences import preference_set

OPTIONS = np.array([2])


def kept(memory: Path, yes: float) -> KeptNoise:
    own: PreferenceSet = preference_set("North", {0: [yes, 1 - yes]}, OPTIONS)
    mechanism = Mechanism.of(Influence(np.array([0.01]), 1), OPTIONS, 1.0, 1e-6)
    return KeptNoise.of(memory, mechanism, own)


def test_its_name_tells_nothing_of_answers(tmp_path: Path) -> None:
    """A message names it, and the server may know all answers but those of one person."""
    assert kept(tmp_path, 0.25).path == kept(tmp_path, 0.75).path
    file = kept(tmp_path, 0.25)
    file.draw_once(lambda: np.array([1, 2]), lambda name: None)
    file.path.write_bytes(b"no")
    with pytest.raises(FederationError, match=f"noised-answers/{file.path.name}, .* is damaged"):
        file.find()


def test_it_is_of_these_answers_alone(tmp_path: Path) -> None:
    spent: list[str] = []

    def drawn(yes: float, noised: Ints) -> list[int]:
        found: list[int] = kept(tmp_path, yes).draw_once(lambda: noised, spent.append).tolist()
        return found

    assert drawn(0.25, np.array([1, 2])) == [1, 2]
    assert drawn(0.25, np.array([3, 4])) == [1, 2]
    assert kept(tmp_path, 0.75).find() is None
    assert drawn(0.75, np.array([5, 6])) == [5, 6]
    assert len(set(spent)) == 2
