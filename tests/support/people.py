"""A small file with one row per person, in the forms that institutes have, and what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyreadstat

PEOPLE = 400
LABELS: Any = {
    "Q1": {
        1: "Very satisfied",
        2: "Fairly satisfied",
        3: "Not satisfied",
        8: "Don't know",
        9: "Refused",
    },
    "Q2": {1: "Yes", 2: "No", -1: "Don't know", -4: "Not asked in survey"},
    "COUNTRY": {276: "Germany", 250: "France"},
}
TEXTS: Any = {
    "Q1": "How satisfied are you with democracy?",
    "Q2": "Would you vote?",
    "COUNTRY": "Country",
    "W": "Weight",
}
MAP = """
weight = "W"
by = ["COUNTRY"]

[[question]]
id = "Q1"
variable = "Q1"
question = "How satisfied are you with democracy?"
ordered = true
options = [
    { code = 1, option = "Very satisfied" },
    { code = 2, option = "Fairly satisfied" },
    { code = 3, option = "Not satisfied" },
]
left-out = [{ code = 8, reason = "don't know" }, { code = 9, reason = "refused" }]

[[question]]
id = "Q2"
variable = "Q2"
question = "Would you vote?"
options = [
    { code = 1, option = "Yes" },
    { code = 2, option = "No" },
    { code = -1, option = "Don't know" },
]
left-out = [{ code = -4, reason = "not asked" }, { code = "missing", reason = "not asked" }]
"""


def people(seed: int = 1) -> pd.DataFrame:
    """Codes and weights of people in two countries; some have no answer."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "COUNTRY": rng.choice([276.0, 250.0], PEOPLE, p=[0.6, 0.4]),
            "W": rng.uniform(0.3, 3.0, PEOPLE),
            "Q1": rng.choice([1.0, 2.0, 3.0, 8.0, 9.0], PEOPLE),
            "Q2": rng.choice([1.0, 2.0, -1.0, -4.0, np.nan], PEOPLE),
        }
    )


def expected(
    frame: pd.DataFrame, country: float, variable: str, codes: list[float]
) -> tuple[list[float], float]:
    """Weighted shares of some codes, and Kish's effective number, by the definition."""
    own = frame[(frame["COUNTRY"] == country) & frame[variable].isin(codes)]
    total = float(own["W"].sum())
    shares = [float(own["W"][own[variable] == code].sum()) / total for code in codes]
    return shares, total**2 / float((own["W"] ** 2).sum())


def _write_sav(frame: pd.DataFrame, file: Path) -> None:
    pyreadstat.write_sav(
        frame,
        str(file),
        column_labels=TEXTS,
        variable_value_labels=LABELS,
        missing_ranges={"Q1": [8, 9], "Q2": [{"lo": -5, "hi": -1}]},
        variable_measure={"Q1": "ordinal", "Q2": "nominal"},
    )


def _write_dta(frame: pd.DataFrame, file: Path) -> None:
    pyreadstat.write_dta(frame, str(file), column_labels=TEXTS, variable_value_labels=LABELS)


def _write_por(frame: pd.DataFrame, file: Path) -> None:
    pyreadstat.write_por(frame, str(file), column_labels=TEXTS)  # it writes no labels of values


def _write_csv(frame: pd.DataFrame, file: Path) -> None:
    frame.to_csv(file, index=False)


def _write_german_csv(frame: pd.DataFrame, file: Path) -> None:
    codes = dict.fromkeys(("COUNTRY", "Q1", "Q2"), "Int64")
    frame.astype(codes).to_csv(file, index=False, sep=";", decimal=",")


def _write_xlsx(frame: pd.DataFrame, file: Path) -> None:
    frame.to_excel(file, index=False)


def _write_parquet(frame: pd.DataFrame, file: Path) -> None:
    frame.to_parquet(file)


WRITERS: dict[str, tuple[str, Callable[[pd.DataFrame, Path], None]]] = {
    "sav": ("people.sav", _write_sav),
    "zsav": ("people.zsav", lambda frame, file: pyreadstat.write_sav(
        frame, str(file), column_labels=TEXTS, variable_value_labels=LABELS, compress=True
    )),
    "dta": ("people.dta", _write_dta),
    "por": ("people.por", _write_por),
    "csv": ("people.csv", _write_csv),
    "german csv": ("people.csv", _write_german_csv),
    "gzip": ("people.csv.gz", _write_csv),
    "parquet": ("people.parquet", _write_parquet),
    "xlsx": ("people.xlsx", _write_xlsx),
}  # fmt: skip
