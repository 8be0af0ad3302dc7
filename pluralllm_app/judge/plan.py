"""What a language model is asked: which questions of which groups, in which orders of options.

A question is put once for each of its K cyclic orders: what stands first in one is last in the
next. So each option stands at each letter once, and what a model has for a letter, whatever stands
there, is the same for all options.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Ints
from pluralllm_app.errors import AnswersError, SurveyError
from pluralllm_app.preferences import PreferenceSet
from pluralllm_app.scoring.evaluation import Draw
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.use.prompts import rendered
from pluralllm_app.use.questions import Question

LETTERS = 26  # a label of two letters is no single token
PERSONA = "Answer the question as these people would: {}\n\n"


@dataclass(frozen=True)
class Prompt:
    """A question as a model sees it."""

    text: str
    question: Question  # with its options in the order shown


@dataclass(frozen=True)
class Place:
    """Where an answer belongs."""

    question: int  # index in the survey
    persona: str | None  # the group as which the model answers; None: as itself
    turn: int  # how many options of the survey's order were moved from the front to the end


@dataclass(frozen=True, eq=False)
class Plan:
    """The questions that a model is asked for some groups, and what it is scored against."""

    survey: PreparedSurvey
    groups: Mapping[str, PreferenceSet]
    draws: Mapping[str, Draw]  # by group: what a predictor is given, and what is asked
    personas: Mapping[str, str]  # by group: who it is, in words
    left_out: int  # questions that cannot be asked by letters

    @cached_property
    def questions(self) -> dict[int, Question]:
        """What is asked, by index in the survey."""
        return _by_index(self.survey, [self.asked(name) for name in self.groups])

    def asked(self, group: str) -> Ints:
        """[n] indices in the survey of the questions that are asked for a group."""
        found: Ints = self.groups[group].questions[self.draws[group][1]]
        return found

    def prompts(self, personas: Sequence[str | None]) -> Iterator[tuple[Place, Prompt]]:
        """Every question of the plan in each of its orders.

        Args:
            personas: groups as which the model is to answer, each the questions that are asked for
                it; None: as itself, all of them.
        """
        for persona in personas:
            which = self.questions if persona is None else self.asked(persona).tolist()
            for index in which:
                question = self.questions[index]
                for turn in range(len(question.options)):
                    place = Place(index, persona, turn)
                    yield place, self.prompt(place)

    def prompt(self, place: Place) -> Prompt:
        """The prompt of one place."""
        question = self.questions[place.question]
        options = [*question.options[place.turn :], *question.options[: place.turn]]
        shown = replace(question, options=options)
        who = "" if place.persona is None else PERSONA.format(self.personas[place.persona])
        return Prompt(f"{who}{rendered(shown)}", shown)


def make_plan(
    survey: PreparedSurvey,
    groups: Mapping[str, PreferenceSet],
    draws: Mapping[str, Draw],
    most: int,
    seed: int,
) -> Plan:
    """Choose what is asked.

    Of the questions that may be asked for a group, the first `most` are taken in an order that
    depends on the seed alone, so that groups share as many as possible.

    Args:
        survey: with the groups' descriptions.
        groups: their answers, by name.
        draws: by group: positions that are given to a predictor, and those that may be asked.
        most: questions of a group, at most.
        seed: of the order.

    Raises:
        SurveyError: none of a group's questions can be asked.
    """
    texts = _by_index(survey, [answers.questions for answers in groups.values()])
    able = {index: question for index, question in texts.items() if _can_be_asked(question)}
    rank = np.empty(len(survey.table), np.int64)
    rank[generator(seed, "judged questions").permutation(len(rank))] = np.arange(len(rank))
    chosen = {}
    for name, answers in groups.items():
        context, target = draws[name]
        may = np.array([p for p in target.tolist() if int(answers.questions[p]) in able], np.int64)
        if not len(may):
            raise SurveyError(
                f"group {name!r} of {survey.path} has answered no question that can be asked: "
                "leave it out, with --group for the others"
            )
        first = may[np.argsort(rank[answers.questions[may]])][:most]
        chosen[name] = context, np.sort(first)
    return Plan(
        survey=survey,
        groups=groups,
        draws=chosen,
        personas={name: survey.description(name) or name for name in groups},
        left_out=len(texts) - len(able),
    )


def _by_index(survey: PreparedSurvey, indices: Sequence[Ints]) -> dict[int, Question]:
    wanted = np.unique(np.concatenate(indices))
    found = survey.questions().select(wanted)
    rows = zip(found.ids, found.texts, found.options, strict=True)
    return {
        index: Question(text, options, id_)
        for index, (id_, text, options) in zip(wanted.tolist(), rows, strict=True)
    }


def _can_be_asked(question: Question) -> bool:
    try:
        question.check()
    except AnswersError:
        return False
    return len(question.options) <= LETTERS
