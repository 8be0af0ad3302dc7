"""Which groups train the predictor and which it is evaluated on."""

from collections.abc import Mapping, Sequence

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError


def named_roles(
    counts: Mapping[str, int], train: Sequence[str], evaluation: Sequence[str], min_questions: int
) -> dict[str, str]:
    """Return the role of each group that takes part, given the question counts of all groups.

    Where none is named for training, all others that answer at least `min_questions` train.

    Raises:
        SurveyError: a name is unknown, has two roles, or answers too few questions, or no group is
            left to train.
    """
    if not train:
        enough = (name for name, count in counts.items() if count >= min_questions)
        train = sorted(set(enough) - set(evaluation))
        if not train:
            raise SurveyError(
                f"no other group answers {min_questions} questions: nothing to train on, lower "
                "--min-questions"
            )
    both = sorted(set(train) & set(evaluation))
    if both:
        raise SurveyError(f"group {both[0]!r} is named for both roles: train or evaluation, choose")
    for name in (*train, *evaluation):
        if name not in counts:
            raise SurveyError(f"the source has no group {name!r}: {did_you_mean(name, counts)}")
        if counts[name] < min_questions:
            raise SurveyError(
                f"group {name!r} answers {counts[name]} questions, fewer than {min_questions}: "
                "leave it out or lower --min-questions"
            )
    return {name: "train" for name in train} | {name: "evaluation" for name in evaluation}


def split_roles(
    counts: Mapping[str, int], fraction: float, min_questions: int, seed: int
) -> dict[str, str]:
    """Return a seeded split of the groups that answer at least `min_questions` questions.

    ``round(fraction * groups)`` of them, but at least one, are for evaluation.

    Raises:
        SurveyError: `fraction` is not within 0 and 1, or fewer than two groups qualify.
    """
    if not 0 < fraction < 1:
        raise SurveyError(f"the evaluation fraction is {fraction}: it must lie between 0 and 1")
    if len(counts) < 2:
        raise SurveyError(
            "the source has a single group, a split needs 2: name it as --train to have no "
            "evaluation group"
        )
    qualified = sorted(name for name, count in counts.items() if count >= min_questions)
    if len(qualified) < 2:
        raise SurveyError(
            f"{len(qualified)} of {len(counts)} groups answer at least {min_questions} questions, "
            "a split needs 2: lower --min-questions"
        )
    evaluated = min(max(1, round(fraction * len(qualified))), len(qualified) - 1)
    order = generator(seed, "roles").permutation(len(qualified))
    held_out = {qualified[index] for index in order[:evaluated]}
    return {name: "evaluation" if name in held_out else "train" for name in qualified}
