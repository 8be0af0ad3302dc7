"""How a question with one of its options becomes a prompt for a language model.

A template is a function here and an entry in `TEMPLATES`. It yields a prompt for each option, which
ends with the option: prompts that are too long are cut at the left.
"""

from collections.abc import Iterator, Sequence
from string import ascii_uppercase


def plain(question: str, options: Sequence[str]) -> Iterator[str]:
    """Yield the question followed by the option."""
    for option in options:
        yield f"{question} Answer: {option}"


def alpaca(question: str, options: Sequence[str]) -> Iterator[str]:
    """Yield prompts in the sections that Alpaca was tuned on, with the option as the response.

    The structure, lettered options included, is that of the GPO paper (arXiv 2310.11523); the
    wording is our own.
    """
    lettered = [f"{_letter(index)}. {option}" for index, option in enumerate(options)]
    for option in lettered:
        yield (
            "### Instruction:\nPick the one option that answers the question.\n\n"
            f"### Input:\n{question}\n\nOptions:\n" + "\n".join(lettered) + "\n\n"
            f"### Response:\n{option}"
        )


def _letter(index: int) -> str:
    return ascii_uppercase[index] if index < len(ascii_uppercase) else str(index + 1)


TEMPLATES = {"plain": plain, "alpaca": alpaca}
