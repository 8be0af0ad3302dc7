"""Which option a completion names, and why another one names none."""

from functools import lru_cache

from pluralllm_app.rewards.counts import LONG, NONE, SCORED, SEVERAL
from pluralllm_app.use.prompts import MOST_CHARACTERS, named_options
from pluralllm_app.use.questions import Question

SHORT = 200  # characters of a completion whose reading is kept, since many samples are alike
named_once = lru_cache(maxsize=2**14)(named_options)


def choice(completion: str, question: Question) -> tuple[int | None, str]:
    """The place of the option that a completion names, and what to count it as."""
    short = len(completion) <= SHORT
    places = (named_once if short else named_options)(completion, question)
    if len(places) == 1:
        return places[0], SCORED
    if places:
        return None, SEVERAL
    return None, LONG if len(completion) > MOST_CHARACTERS else NONE
