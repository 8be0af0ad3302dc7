"""Which groups train the predictor, and on which groups it is evaluated."""

import re
import shlex
from collections.abc import Mapping, Sequence

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError, TooSmallError


def named_roles(
    counts: Mapping[str, int], train: Sequence[str], evaluation: Sequence[str], min_questions: int
) -> dict[str, str]:
    """Return the role of each group that takes part, by name.

    If no group is named for training, all other groups that answer at least `min_questions` train.

    Args:
        counts: how many questions each group of the source answers.

    Raises:
        SurveyError: a group is unknown, has two roles or answers too few questions, or no group is
            left to train.
    """
    if not train:
        enough = (name for name, count in counts.items() if count >= min_questions)
        train = sorted(set(enough) - set(evaluation))
        if not train:
            others = [count for name, count in counts.items() if name not in evaluation]
            raise _too_few(
                f"no other group answers {min_questions} questions, so there is nothing to train "
                "on: lower --min-questions",
                [*sorted(others)[-2:], *(counts[name] for name in evaluation if name in counts)],
            )
    both = sorted(set(train) & set(evaluation))
    if both:
        raise SurveyError(f"group {both[0]!r} is named for both roles: choose train or evaluation")
    for name in (*train, *evaluation):
        if name not in counts:
            parts = [part.strip() for part in re.split("[,;]", name)]
            if set(parts) <= set(counts):
                role = "train" if name in train else "evaluation"
                options = " ".join(f"--{role} {shlex.quote(part)}" for part in parts)
                raise SurveyError(f"{name!r} are several groups: repeat the option, {options}")
            raise SurveyError(f"the source has no group {name!r}: {did_you_mean(name, counts)}")
        if counts[name] < min_questions:
            raise _too_few(
                f"group {name!r} answers {counts[name]} questions, fewer than {min_questions}: "
                "leave it out or lower --min-questions",
                [counts[other] for other in (*train, *evaluation) if other in counts],
            )
    return {name: "train" for name in train} | {name: "evaluation" for name in evaluation}


def split_roles(
    counts: Mapping[str, int], fraction: float, min_questions: int, seed: int
) -> dict[str, str]:
    """Return a seeded split of the groups that answer at least `min_questions` questions.

    ``round(fraction * groups)`` of them are for evaluation, but at least one, and at least one
    trains.

    Raises:
        SurveyError: `fraction` is not between 0 and 1, or fewer than two groups qualify.
    """
    if not 0 < fraction < 1:
        raise SurveyError(f"the evaluation fraction is {fraction}: it must lie between 0 and 1")
    if len(counts) < 2:
        raise SurveyError(
            "the source has a single group but a split needs 2: name it as --train to have no "
            "evaluation group"
        )
    qualified = sorted(name for name, count in counts.items() if count >= min_questions)
    if len(qualified) < 2:
        # Two to train on, and one to score that never trains.
        raise _too_few(
            f"{len(qualified)} of {len(counts)} groups answer at least {min_questions} questions, "
            "but a split needs 2: lower --min-questions",
            sorted(counts.values())[-3:],
        )
    evaluated = min(max(1, round(fraction * len(qualified))), len(qualified) - 1)
    order = generator(seed, "roles").permutation(len(qualified))
    held_out = {qualified[index] for index in order[:evaluated]}
    return {name: "evaluation" if name in held_out else "train" for name in qualified}


def _too_few(text: str, counts: Sequence[int]) -> SurveyError:
    """An error that lets groups with so many questions take part."""
    least = min(counts, default=0)
    return TooSmallError(text, ["--min-questions", str(least)]) if least else SurveyError(text)
