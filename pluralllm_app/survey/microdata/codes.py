"""Which codes of a variable are answers, as its labels and the conventions of surveys say."""

import re
from collections.abc import Sequence

from pluralllm_app.survey.microdata.profiles import Profile
from pluralllm_app.survey.microdata.variables import Variable, number_of

_STATA = re.compile(r"\.[a-z]")  # its missing values
UNLABELLED = "code without label"


def place(code: str) -> tuple[int, float, str]:
    """What codes are sorted by: numbers by their size, then others."""
    number = number_of(code)
    return (1, 0.0, code) if number is None else (0, number, code)


def sorted_codes(
    variable: Variable, found: Sequence[str], profile: Profile
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options and what is left out of a variable, by code."""
    options: dict[str, str] = {}
    left_out: dict[str, str] = {}
    loose: list[str] = []  # without a label
    for code in sorted({*found, *variable.labels}, key=place):
        label = variable.labels.get(code, "")
        reason = profile.reason(code, label) or profile.reason(code, code if not label else "")
        if variable.is_missing(code) or _STATA.fullmatch(code):
            reason = reason or label or "missing"
        if reason:
            left_out[code] = reason
        elif label or not variable.labels:
            options[code] = label or code
        else:
            loose.append(code)
    numbers = [number for code in options if (number := number_of(code)) is not None]
    for code in loose:
        number = number_of(code)
        if (
            number is not None
            and number.is_integer()
            and min(numbers, default=number) < number < max(numbers, default=number)
        ):
            options[code] = code
        else:
            left_out[code] = UNLABELLED
    return {code: options[code] for code in sorted(options, key=place)}, left_out
