"""Which question each prompt asks, and what a group is predicted to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pluralllm_app.core.segments import Doubles
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards.rollouts import Rollout
from pluralllm_app.use.group import Group
from pluralllm_app.use.prompts import read_prompt
from pluralllm_app.use.questions import Question, named, told, words
from pluralllm_app.use.survey import Survey

KEPT = 20_000  # questions whose predictions are kept
Key = tuple[str | None, str | None, tuple[str, ...], Question | None]
read_once = lru_cache(maxsize=4096)(read_prompt)  # a prompt comes with each of its completions


def key_of(row: Rollout) -> Key | None:
    """What tells the question of a completion; None where its columns name none.

    Raises:
        AnswersError: neither columns nor the prompt say what it asks.
    """
    block = read_once(row.prompt)
    if not row.named:
        if block is None:
            raise AnswersError(
                f"the prompt of {row.place} asks no question that can be read: give the "
                "columns question_id, or question and options, or make prompts by "
                "`pluralllm_app.rewards.rendered`"
            )
        return None, None, (), block
    if row.question_id is None and row.question is None:
        return None
    return row.question_id, row.question, row.options, block


def find(survey: Survey, key: Key, place: str) -> tuple[Question, int, Question]:
    """The question as a prompt asks it, its place in the survey, and as the survey has it.

    Args:
        survey: to look in.
        key: of `key_of`.
        place: of the completion, for messages.

    Returns:
        A place of -1 for a new question, which then comes twice.

    Raises:
        AnswersError: it is not known and has no options, or prompt and columns do not agree.
    """
    id_, text, options, block = key
    if text is not None:
        wish = Question(text, options or (block.options if block else ()), id_)
    elif id_ is not None:
        wish = Question(id_, (), id_)  # an id alone makes no new question
    else:
        assert block is not None
        wish = block
    where, found = survey.find(wish, [])
    if block is not None and words(block.text) != words(found.text):
        raise AnswersError(
            f"the prompt of {place} asks {named(block)}, and its columns name {named(found)}: "
            "correct one of them"
        )
    order = options or (block.options if block else found.options)
    asked = Question(found.text, order, found.id)
    if sorted(map(str, map(found.option, asked.options))) != sorted(found.options):
        raise AnswersError(
            f"{place}: {named(found)} has the options {told(found)}, and its prompt has "
            f"{told(asked)}: give these"
        )
    return asked, where, found


@dataclass(frozen=True, eq=False)
class Asked:
    """A question as a prompt asks it, and what a group is predicted to answer."""

    question: Question  # its options are in the prompt's order, which their letters follow
    shares: Doubles  # [options] in this order, summing to 1


class Predictions:
    """What one group is predicted to answer to questions of prompts, each predicted once."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._known: dict[Key, Asked] = {}

    def of(self, rows: Sequence[Rollout]) -> list[Asked | None]:
        """The question of each completion; None where its columns name none.

        Raises:
            AnswersError: a question is not known and has no options, the prompt asks another one
                than its columns say, or nothing says what it asks.
            PredictorError: a new question cannot be embedded here, or this kind predicts none.
        """
        keys = [key_of(row) for row in rows]
        if len(self._known) > KEPT:
            self._known.clear()
        places = {
            key: row.place
            for key, row in zip(keys, rows, strict=True)
            if key is not None and key not in self._known
        }
        if places:
            self._predict(places)
        return [None if key is None else self._known[key] for key in keys]

    def _predict(self, places: dict[Key, str]) -> None:
        survey = self._group.survey
        asked = {key: find(survey, key, place) for key, place in places.items()}
        answers = self._group.predict([found for _, _, found in asked.values()])
        for (key, (question, _, _)), answer in zip(asked.items(), answers, strict=True):
            known = answer.question
            by_option = [answer.shares[str(known.option(option))] for option in question.options]
            self._known[key] = Asked(question, np.array(by_option))
