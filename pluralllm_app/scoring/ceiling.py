"""The alignment that a group's own sampling noise leaves within reach: a yardstick, no method.

A group's observed shares q are those of n people. Whoever knew the shares p of all its people, and
predicted them, would still score less than 1 against q. That expected score,

    c(p, n) = E[ alignment(p, q') ],    q' the shares of n people drawn at random from p,

is what a perfect predictor reaches on average. As p is not known, c(p, n) is averaged over what p
may be in the light of q, the posterior under a prior of PRIOR pseudo-people per option:

    p ~ Dirichlet(n q + PRIOR),    q' ~ Multinomial(n, p) / n.

Drawing q' from q itself would be biased: an option that by chance nobody picked would have no
noise, and from 30 people the estimate would be up to 0.02 too high. This one is within 0.003 on
average from 100 people on, and within 0.01 from 30, for truths between Dirichlet(0.3), where most
options are hardly ever picked, and Dirichlet(3) (`tests/scoring/test_ceiling.py`).

Limits. n is the number of people whose answers would vary as much as these, drawn one by one at
random: weights, clusters and rounded shares are not accounted for unless n is. A constant bias of
the survey, such as people who are never reached, is no noise. For n of a few people, some
prediction other than p has a slightly better expected score.
"""

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Doubles
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.evaluation import Draw
from pluralllm_app.scoring.metrics import GroupScores, alignment

PRIOR = 0.5  # pseudo-people per option: Jeffreys' prior
SAMPLES = 100  # draws of p and q' for each question


def sampling_ceiling(
    preferences: PreferenceSet, draws: list[Draw], metric: str, seed: int
) -> GroupScores:
    """Estimate c(p, n) of each target question whose respondents are known.

    Args:
        preferences: of the group.
        draws: whose targets are scored; contexts do not matter.
        metric: of the survey.
        seed: of the samples, which depend on it and on the group's name alone.

    Raises:
        ValueError: of no target it is known how many people answered it.
    """
    targets = np.unique(np.concatenate([target for _, target in draws]))
    if preferences.respondents is not None:
        targets = targets[~np.isnan(preferences.respondents[targets])]
    asked = preferences.select(targets)
    if asked.respondents is None or not len(targets):
        raise ValueError(f"it is not known how many people in {preferences.group!r} were asked")
    options, values = asked.options, asked.values
    people = np.rint(asked.respondents).astype(np.int64)
    # Questions of any number of options side by side: options that do not exist are never drawn.
    real = np.arange(options.max()) < options[:, None]
    counts = np.zeros(real.shape)
    counts[real] = asked.shares
    counts = np.where(real, counts * people[:, None] + PRIOR, 0.0)
    rng = generator(seed, "sampling ceiling", preferences.group)
    total = np.zeros(len(targets))
    for _ in range(SAMPLES):
        truth = _dirichlet(counts, rng)
        sample = rng.multinomial(people, truth) / people[:, None]
        total += alignment(metric, truth[real], sample[real], options, values)
    return GroupScores(asked.questions, total / SAMPLES)


def _dirichlet(concentration: Doubles, rng: np.random.Generator) -> Doubles:
    """Draw from a Dirichlet distribution for each row [Q, options]; 0 stays 0."""
    drawn = rng.standard_gamma(concentration)
    shares: Doubles = drawn / drawn.sum(axis=1, keepdims=True)
    return shares
