"""Which groups learn in a round."""

from collections.abc import Sequence

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.settings import Settings


def chosen_groups(train_groups: Sequence[str], settings: Settings, round_number: int) -> list[str]:
    """Sorted names of the groups that train in a round: all, or a sample that the seed draws."""
    count = settings.federation.train_groups_per_round or len(train_groups)
    rng = generator(settings.federation.seed, "groups", round_number)
    return sorted(rng.permutation(np.array(sorted(train_groups), dtype=object))[:count])
