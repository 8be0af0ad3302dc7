"""Update hooks: what may change a contribution between the group and the sum.

Clipping, noise and masks are hooks. Each has a half at the group, after the learner's, and a half
at the server, before the strategy's. Groups apply the hooks in their order, the server in the
opposite one, so that what was put on last comes off first.
"""

from collections.abc import Iterator

from pluralllm_app.learning.base import Contribution, Form, Request
from pluralllm_app.predictors.base import Arrays


class UpdateHook:
    """Changes nothing; a hook overrides the halves it has."""

    def at_group(
        self, group: str, sent: Arrays, contribution: Contribution, request: Request
    ) -> Contribution:
        """What the group sends instead of `contribution`.

        With `predictor = gpo` the array of a contribution is the trained weights, so that what the
        group changed is their difference from `sent`.

        Args:
            group: its name.
            sent: what the group was sent and started from.
            contribution: of the learner, or of the hook before.
            request: what the server asks.
        """
        return contribution

    def form(self, form: Form) -> Form:
        """What contributions look like after `at_group`, where they looked like `form` before."""
        return form

    def at_server(
        self, sent: Arrays, contributions: Iterator[Contribution]
    ) -> Iterator[Contribution]:
        """What the strategy gets instead of `contributions`: as many, or one that is their sum."""
        return contributions


HOOKS: list[UpdateHook] = []
"""Those of every run, in the order in which groups apply them.

Groups and server are different processes, in a simulation too: a hook is added here, in the app's
own code, so that all of them have it.
"""


def at_group(
    group: str, sent: Arrays, contribution: Contribution, request: Request
) -> Contribution:
    """A contribution after the groups' halves of all hooks."""
    for hook in HOOKS:
        contribution = hook.at_group(group, sent, contribution, request)
    return contribution


def sent_form(form: Form) -> Form:
    """What contributions look like on the way, where the learner's look like `form`."""
    for hook in HOOKS:
        form = hook.form(form)
    return form


def at_server(sent: Arrays, contributions: Iterator[Contribution]) -> Iterator[Contribution]:
    """Contributions after the server's halves of all hooks."""
    for hook in reversed(HOOKS):
        contributions = hook.at_server(sent, contributions)
    return contributions
