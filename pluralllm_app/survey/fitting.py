"""One group's answers from a file, put in the order of a questionnaire that was made elsewhere.

Questions are the same if their ids are, options if their texts are. Whatever contradicts the
questionnaire is refused, since the answers would then be those to other questions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten

import numpy as np

from pluralllm_app.core.names import clean_text, look
from pluralllm_app.core.segments import Ints, segment_starts
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.core.wording import many
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent

SHOWN = 5  # faults in a message


@dataclass(frozen=True, eq=False)
class Fitted:
    """The answers of one group to questions of a questionnaire."""

    answers: Answers  # in the order of the questionnaire
    notes: Sequence[str]  # what to say of them


def own_answers(content: SurveyContent, group: str) -> SurveyContent:
    """Return what a file says of one group.

    Raises:
        SurveyError: the file has no such group, or another one whose name looks alike.
    """
    names = content.answers.groups
    wanted = clean_text(group)
    if wanted not in names:
        raise SurveyError(f"{content.source} has no group {group!r}: {did_you_mean(wanted, names)}")
    refuse_twins(wanted, names, content.source)
    own = content.restricted([wanted])
    alone = replace(own.answers, groups=[wanted], group=np.zeros_like(own.answers.group))
    return replace(own, answers=alone)


def refuse_twins(group: str, names: Iterable[str], where: str) -> None:
    """Raise SurveyError if another name looks like that of a group, so that its answers are split.

    Args:
        group: its name.
        names: of all groups.
        where: they are, for the message.
    """
    for other in names:
        if other != group and look(other) == look(group):
            raise SurveyError(
                f"{where} has the groups {group!r} and {other!r}, whose names differ by capitals, "
                "width or accents alone: write them alike if they are one group, or differently"
            )


def fitted(content: SurveyContent, questionnaire: Questions) -> Fitted:
    """Put the answers of one group in the order of a questionnaire.

    Args:
        content: of this group alone, with at least one option for each question.
        questionnaire: Q questions.

    Raises:
        SurveyError: a question or an option is none of the questionnaire's, or has another text or
            ordinal value; the message names the first of them and what is nearest.
    """
    at = {id_: number for number, id_ in enumerate(questionnaire.ids)}
    own = content.questions
    faults: list[str] = []
    lacking: list[str] = []
    numbers: list[int] = []  # in the questionnaire, of each question of the file
    places: list[list[int]] = []  # among its options, of each option of the file
    for id_, text, options, values in zip(own.ids, own.texts, own.options, own.values, strict=True):
        if id_ not in at:
            faults.append(_unknown(id_, text, questionnaire))
            continue
        number = at[id_]
        known = questionnaire.options[number]
        fault = _other_text(id_, text, questionnaire.texts[number]) or _other_options(
            id_, options, values, known, questionnaire.values[number]
        )
        if fault:
            faults.append(fault)
            continue
        numbers.append(number)
        places.append([known.index(option) for option in options])
        lacking += [f"{id_!r} {option!r}" for option in known if option not in options]
    if faults:
        more = f"\n... and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
        raise SurveyError(
            f"{content.source}: not all is as the questionnaire has it:\n"
            + "\n".join(faults[:SHOWN])
            + more
            + "\nWrite ids, questions and options as the questionnaire has them, in the table or "
            "in the map."
        )
    notes = [f"{len(numbers):,} of {many(len(questionnaire), 'question')} answered"]
    if lacking:
        notes.append(
            f"{len(lacking):,} options of these questions do not occur in the file, which counts "
            f"as a share of 0, the first is {lacking[0]}"
        )
    return Fitted(_reordered(content.answers, own, questionnaire, numbers, places), notes)


def _reordered(
    answers: Answers,
    own: Questions,
    questionnaire: Questions,
    numbers: Sequence[int],
    places: Sequence[Sequence[int]],
) -> Answers:
    """Return the answers with the questionnaire's numbers, and a share for each of its options."""
    question: Ints = np.array(numbers, np.int64)[answers.question]
    lengths = questionnaire.counts[question]
    shares = np.zeros(int(lengths.sum()))
    starts = segment_starts(lengths)
    counts = own.counts[answers.question]
    place = [at for asked in answers.question.tolist() for at in places[asked]]
    shares[np.repeat(starts, counts) + np.array(place, np.int64)] = answers.shares
    order = np.argsort(question, kind="stable")
    return replace(answers, question=question, shares=shares).select(order, questionnaire)


def _unknown(id_: str, text: str, questionnaire: Questions) -> str:
    if text in questionnaire.texts:
        known = questionnaire.ids[questionnaire.texts.index(text)]
        return f"question {id_!r} is called {known!r} there"
    near = did_you_mean(id_, questionnaire.ids)
    return f"question {id_!r} ({shorten(text, 60)!r}) is not in it: {near}"


def _other_text(id_: str, text: str, known: str) -> str:
    if look(text) == look(known):
        return ""
    return f"question {id_!r} is {shorten(text, 80)!r} here and {shorten(known, 80)!r} there"


def _other_options(
    id_: str,
    options: Sequence[str],
    values: Sequence[float] | None,
    known: Sequence[str],
    ordinal: Sequence[float] | None,
) -> str:
    for at, option in enumerate(options):
        if option not in known:
            near = did_you_mean(option, known)
            return f"question {id_!r} has no option {option!r} there: {near}"
        if values is not None and ordinal is not None:
            place = known.index(option)
            if not np.isnan(values[at]) and values[at] != ordinal[place]:
                return (
                    f"question {id_!r}: the ordinal value of {option!r} is {values[at]:g} here and "
                    f"{ordinal[place]:g} there; write the places that the questionnaire has, in a "
                    "map as value = ... in each option, or leave them out (ordered = false)"
                )
    return ""
