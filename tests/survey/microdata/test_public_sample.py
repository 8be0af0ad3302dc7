"""A survey that a package ships: American National Election Study of 1996, in the public domain."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.site import Site
from tests.survey.test_making_sites import done

PLACES = "Where would you place yourself, from liberal to conservative?"


def test_from_the_package_to_sites(tmp_path: Path) -> None:
    file = Path(str(files("statsmodels.datasets.anes96") / "anes96.csv"))
    frame = pd.read_csv(file, sep="\t", quotechar="'")  # its columns are called 'vote', with marks
    draft, map_ = tmp_path / "draft.toml", tmp_path / "map.toml"
    assert "a draft with 8 questions" in done("questionnaire", file, "--out", draft)
    text = draft.read_text("utf-8").replace('''question = "'selfLR'"''', f'question = "{PLACES}"')
    head, *parts = text.split("[[question]]")
    kept = [part for part in parts if "'selfLR'" in part or "'TVnews'" in part]
    map_.write_text("[[question]]".join([head, *kept]), "utf-8")
    done("questionnaire", map_, "--out", tmp_path / "questions")
    counted = ("--file", file, "--map", map_, "--weight", "none", "--by", "'vote'")
    done(
        *("prepare", "microdata", *counted, "--train", "0", "--evaluation", "1"),
        *("--min-questions", "2", "--out", tmp_path / "pooled"),
    )
    survey = PreparedSurvey.open(tmp_path / "pooled")
    assert survey.fingerprint == PreparedSurvey.open(tmp_path / "questions").fingerprint
    group = ("--group", "0", "--out", tmp_path / "site")
    done("site", "create", tmp_path / "questions", *counted, *group)
    site = Site.open(tmp_path / "site")
    own = site.survey.preferences("0")
    voters = frame[frame["vote"] == 0]
    wanted = [
        *voters["TVnews"].value_counts(normalize=True).sort_index(),
        *voters["selfLR"].value_counts(normalize=True).sort_index(),
    ]
    np.testing.assert_allclose(own.shares, wanted, rtol=1e-6)
    np.testing.assert_array_equal(own.shares, survey.preferences("0").shares)
    assert own.respondents is not None
    assert own.respondents.tolist() == [len(voters), len(voters)]
