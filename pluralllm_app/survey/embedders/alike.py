"""Options that an embedder cannot tell apart."""

from pluralllm_app.core.segments import Halves
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Questions


def alike_options(questions: Questions, embeddings: Halves, embedder: str) -> str:
    """Return a warning if options of a question that differ in text have the same vector, else "".

    Args:
        questions: what was embedded.
        embeddings: [rows, dim], one row for each option.
        embedder: its name, for the message.

    Raises:
        SurveyError: half of the questions or more have such options, so that scores would mean
            nothing.
    """
    count, example = alike(questions, embeddings)
    if not count:
        return ""
    found = (
        f"{count:,} of {many(len(questions), 'question')} with options that differ in text but "
        f"have the same vector, the first {example}"
    )
    if 2 * count >= len(questions):
        raise SurveyError(
            f"embedder {embedder!r} cannot tell options apart: {found}. Is its tokenizer "
            "there, and does it know the language? If not, pass another --embedder"
        )
    return f"{found}. No predictor can tell them apart: word them in other ways"


def alike(questions: Questions, embeddings: Halves) -> tuple[int, str]:
    """How many questions have options that differ in text but not in vector; and the first two."""
    count, example = 0, ""
    rows = iter(embeddings)
    for id_, options in zip(questions.ids, questions.options, strict=True):
        first: dict[bytes, str] = {}  # option by vector
        same = [
            (before, option)
            for option in options
            # Added to 0, since -0 and 0 have different bytes.
            if (before := first.setdefault((next(rows) + 0.0).tobytes(), option)) != option
        ]
        if same:
            count += 1
            example = example or f"{same[0][0]!r} and {same[0][1]!r} of question {id_!r}"
    return count, example
