"""Questions with two options: what is uncertain of one share is uncertain of the other."""

from dataclasses import replace

from pluralllm_app.core.segments import Ints, segment_starts
from pluralllm_app.predictors.base import Prediction


def agreeing(prediction: Prediction, options: Ints) -> Prediction:
    """The prediction with one interval for each question of two options, seen from both sides.

    The two shares sum to 1, so that each option's own interval is one for both of them. The bounds
    are the means of the two, and so is the variance.

    Args:
        prediction: with deviations and intervals.
        options: [Q] how many each question has.
    """
    assert prediction.deviation is not None
    assert prediction.intervals is not None
    one = segment_starts(options)[options == 2]
    other = one + 1
    deviation, intervals = prediction.deviation.copy(), prediction.intervals.copy()
    variance = (deviation[one] ** 2 + deviation[other] ** 2) / 2
    deviation[one] = deviation[other] = variance**0.5
    mirrored = 1 - intervals[:, ::-1]
    intervals[..., one] = (intervals[..., one] + mirrored[..., other]) / 2
    intervals[..., other] = 1 - intervals[:, ::-1][..., one]
    return replace(prediction, deviation=deviation, intervals=intervals)
