"""What commands that use a predictor say beside their result, which may go to a file."""

from typing import TYPE_CHECKING

from pluralllm_app.core.terminal import Terminal

if TYPE_CHECKING:
    from pluralllm_app.use.group import Group

DOUBTFUL = 0.5  # of a group's shares in intervals of 80 %


def say_notes(group: "Group") -> None:
    """Say beside the result what was understood of a group, and whether its answers fit."""
    for note in group.notes:
        tell(f"Note: {note}")
    if group.held is not None and group.held < DOUBTFUL:
        tell(
            f"Note: of the shares given, {group.held:.0%} lie in the 80% intervals that the other "
            "half of the answers predicts: the group is unlike those that the predictor was "
            "trained on, or its answers are read wrongly, and intervals are too narrow"
        )


def tell(line: str) -> None:
    """Say something beside the result, which may go to a file."""
    Terminal(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
