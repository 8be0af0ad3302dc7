"""Asks a model what is not known yet, and keeps each answer as soon as it comes."""

from collections.abc import Callable, Sequence

from pluralllm_app.errors import UserError
from pluralllm_app.judge.answers import Answer, Model
from pluralllm_app.judge.kept import KeptAnswers, key_of
from pluralllm_app.judge.plan import Place, Prompt


def ask(
    model: Model,
    prompts: Sequence[tuple[Place, Prompt]],
    kept: KeptAnswers,
    watch: Callable[[int, int], None],
) -> tuple[dict[Place, Answer], str]:
    """The answers to all prompts, and the kind of asking, one of the model's.

    Args:
        model: not asked at all where every answer is kept already.
        prompts: with where each belongs.
        kept: answers of earlier times; new ones are added.
        watch: told how many of how many answers there are.

    Raises:
        UserError: the model cannot be had, or stops to answer.
    """
    for kind in model.kinds:
        answers, missing = _known(model, kind, prompts, kept)
        if not missing:
            return answers, kind
    try:
        kind = model.connect(prompts[0][1])
        answers, missing = _known(model, kind, prompts, kept)
        watch(len(answers), len(prompts))
        for place, answer in model.ask([prompts[number][1] for number in missing]):
            where, prompt = prompts[missing[place]]
            kept.add(key_of(model.identity, kind, prompt), answer)
            answers[where] = answer
            watch(len(answers), len(prompts))
    except UserError as error:
        error.add_note(
            f"Answers so far are kept in {kept.path}: the command goes on from there once it is "
            "repeated."
        )
        raise
    return answers, kind


def _known(
    model: Model, kind: str, prompts: Sequence[tuple[Place, Prompt]], kept: KeptAnswers
) -> tuple[dict[Place, Answer], list[int]]:
    """The answers that are kept, and the numbers of the prompts without."""
    answers: dict[Place, Answer] = {}
    missing = []
    for number, (place, prompt) in enumerate(prompts):
        options = len(prompt.question.options)
        found = kept.get(key_of(model.identity, kind, prompt), options)
        if found is None:
            missing.append(number)
        else:
            answers[place] = found
    return answers, missing
