"""A group's half of rewards: the shares of its people that pick some options of the survey.

A server that rewards completions of a language model asks by numbers of options. Prompts and
completions stay with it, and it puts groups' shares together, see `rewards.federated`.

In the clear a group is asked once. For a secure sum it is asked twice: first which of the options
it has answered, so that the server knows how many groups have; and then, told these numbers, for
its shares, from which it leaves out what too few groups have answered.
"""

import numpy as np

from pluralllm_app.core.segments import Doubles, Ints
from pluralllm_app.errors import FederationError, RefusedError
from pluralllm_app.learning.base import ArrayForm, Contribution, Form, Request
from pluralllm_app.learning.factors import CONTRIBUTORS
from pluralllm_app.predictors.base import Arrays
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.settings import FederationSettings

ROWS, ANSWERED, SHARES = "rows", "answered", "shares"


def reward_form(sent: Arrays, secure: bool) -> Form:
    """What groups answer to what was sent.

    Args:
        sent: `ROWS` [n], and `CONTRIBUTORS` [n] where shares are asked for in a secure sum.
        secure: whether a secure sum is made of the answers.
    """
    each = ArrayForm(np.dtype(np.float64), (len(sent[ROWS]),), 0.0, 1.0)
    if not secure:
        return Form({ANSWERED: each, SHARES: each}, {})
    return Form({SHARES if CONTRIBUTORS in sent else ANSWERED: each}, {})


def reward_request(sent: Arrays, experiment: str) -> Request:
    """What stands for a request in a secure sum of rewards, at the server and at groups."""
    return Request(int(CONTRIBUTORS in sent), evaluate=False, experiment=experiment, counted=0)


def reward_contribution(
    sent: Arrays, preferences: PreferenceSet, role: str, settings: FederationSettings
) -> Contribution:
    """What a group answers, before it is masked.

    Args:
        sent: by the server, see `reward_form`.
        preferences: all answers of the group.
        role: of the group.
        settings: of the run.

    Raises:
        RefusedError: the run is not for rewards, or the group never trains.
        FederationError: what was sent is no question for options of this survey.
    """
    if settings.purpose != "rewards":
        raise RefusedError("the run is not for rewards, and the server asks for them")
    if role != "train":
        raise RefusedError("its site says that its group never trains, and so gives no rewards")
    secure = settings.privacy != "none"
    rows = _checked_rows(sent, len(preferences.embeddings), secure)
    answered, shares = true_shares(rows, preferences)
    if not secure:
        return Contribution({ANSWERED: answered, SHARES: shares}, 1.0, {})
    if CONTRIBUTORS not in sent:
        return Contribution({ANSWERED: answered}, 1.0, {})
    enough = sent[CONTRIBUTORS] >= settings.min_contributors
    return Contribution({SHARES: np.where(enough, shares, 0.0)}, 1.0, {})


def true_shares(rows: Ints, preferences: PreferenceSet) -> tuple[Doubles, Doubles]:
    """Whether a group has answered each option [n], 0 or 1, and its share [n]; 0 where not."""
    answered = np.zeros(len(preferences.embeddings))
    shares = np.zeros(len(preferences.embeddings))
    answered[preferences.rows], shares[preferences.rows] = 1.0, preferences.shares
    return answered[rows], shares[rows]


def _checked_rows(sent: Arrays, options: int, secure: bool) -> Ints:
    if set(sent) not in ({ROWS}, {ROWS, CONTRIBUTORS} if secure else {ROWS}):
        raise FederationError("the server's question for rewards has other arrays than it may have")
    if any(array.dtype != np.int64 or array.shape != sent[ROWS].shape for array in sent.values()):
        raise FederationError("the server's question for rewards is no list of options")
    rows: Ints = sent[ROWS]
    if rows.ndim != 1 or not len(rows) or (np.diff(rows) <= 0).any():
        raise FederationError("the server asks for options that are not in ascending order")
    if rows[0] < 0 or rows[-1] >= options:
        raise FederationError(f"the server asks for options outside of the survey's {options}")
    return rows
