"""From a file with one row per person and its map to the answers of groups.

A share is the sum of the weights of those who picked the option, over that of all who answered. As
`respondents` counts Kish's effective number, (sum of weights)^2 / (sum of squared weights): the
shares vary as much as those of an unweighted sample of that size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralllm_app.core.names import clean_text
from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.content import Answers, Questions, SurveyContent
from pluralllm_app.survey.microdata.files import Microdata, column_of, open_microdata, stem_of
from pluralllm_app.survey.microdata.grouping import NO_GROUP, OTHER_GROUP, Grouping
from pluralllm_app.survey.microdata.ledger import LeftOut
from pluralllm_app.survey.microdata.mapping import Map, read_map
from pluralllm_app.survey.microdata.portable import NOTE, Lost
from pluralllm_app.survey.microdata.tally import Tally
from pluralllm_app.survey.microdata.weights import Weights
from pluralllm_app.survey.sources.stated import Stated

UNWEIGHTED = "none"
MIN_RESPONDENTS = 30
MOST_WEIGHTLESS = 0.05  # of the people; more, and it is hardly their weight


@dataclass(frozen=True)
class Counted:
    """The answers of groups, and what is not in them."""

    content: SurveyContent
    left_out: Sequence[LeftOut]


def count_people(file: Path, stated: Stated, group: str | None = None) -> Counted:
    """Count the people of a file.

    Args:
        file: one row per person.
        stated: the map, and what else the user says of the file.
        group: the only one to count; without columns that say who belongs to which group, all
            people are of it. None: all groups.

    Raises:
        SurveyError: the file or the map cannot be read, a column is missing, a weight is negative
            or no number, a code is not in the map, or there is no such group.
    """
    if stated.map is None:
        raise SurveyError(needs_map(file))
    mapped = read_map(stated.map)
    data = open_microdata(file, stated)
    questions = mapped.content()
    for name in mapped.variables:
        if name not in data.dictionary.variables:
            near = did_you_mean(name, data.dictionary.variables)
            raise SurveyError(
                f"{data.file} has no variable {name!r} of {mapped.file}: {near}. If it was not "
                "asked here, remove its entry from the map: a site may lack questions"
            )
    if twice := mapped.twice:
        data.notes.append(f"in several questions of the map: {', '.join(twice)}")
    weight = _weight_column(data, stated.weight or mapped.weight)
    by = [column_of(data, name, "column") for name in _columns(stated.by) or mapped.by]
    if not by and group is None:
        raise SurveyError(f"{file}: say which column tells the groups apart, as in --by country")
    grouping = Grouping(data, by, group)
    weights = Weights(data, weight)
    tally, people = _tallied(data, mapped, grouping, weights)
    return _counted(data, tally, people, grouping, questions, stated, weights)


def needs_map(file: Path) -> str:
    """Say that a file cannot be read without a map."""
    return (
        f"{file} has one row per person, and needs --map: `pluralllm questionnaire {file.name} "
        f"--out {file.stem}.toml` makes a draft, for you to edit"
    )


def _weight_column(data: Microdata, name: str | None) -> str | None:
    """Return the column of weights, None for no weights."""
    if name is None:
        raise SurveyError(
            f"{data.file}: say which column weighs people, as in --weight weight, or --weight "
            f"{UNWEIGHTED} if all of them count alike"
        )
    return None if name == UNWEIGHTED else column_of(data, name, "column of weights")


def _columns(by: str | None) -> list[str]:
    return [] if by is None else [clean_text(name) for name in by.split(",") if name.strip()]


def _tallied(
    data: Microdata, mapped: Map, grouping: Grouping, weight: Weights
) -> tuple[Tally, list[LeftOut]]:
    """Count all rows; also return who is in no count at all."""
    tally, lost = Tally(mapped), Lost(data.file, mapped)
    reasons = dict.fromkeys(("another group", "no group", "no weight", "weight 0"), 0)
    counted = 0
    codes = list(dict.fromkeys([*mapped.variables, *grouping.by]))
    for people in data.read(codes, weight.columns):
        lost.add(people)
        group = grouping.of(people)
        weights = weight.of(people)
        reasons["another group"] += int((group == OTHER_GROUP).sum())
        reasons["no group"] += int((group == NO_GROUP).sum())
        here = group >= 0
        reasons["no weight"] += int((here & np.isnan(weights)).sum())
        reasons["weight 0"] += int((here & (weights == 0)).sum())
        here &= weights > 0
        counted += int(here.sum())
        weight.note(weights[here], group[here])
        tally.add(people, np.where(here, group, -1), np.where(here, weights, 0), grouping.names)
    grouping.check()
    weight.check()
    if reasons["no weight"] > MOST_WEIGHTLESS * (counted + reasons["no weight"]):
        raise SurveyError(
            f"{data.file}: {reasons['no weight']:,} of {counted + reasons['no weight']:,} people "
            f"have no {weight.column}: it may be the weight of another wave or group; name that of "
            "all"
        )
    tally.refuse_unknown(str(data.file))
    lost.check()
    if lost.here:
        data.notes.append(NOTE)
    return tally, [LeftOut("", why, number) for why, number in reasons.items() if number]


def _counted(
    data: Microdata,
    tally: Tally,
    people: Sequence[LeftOut],
    grouping: Grouping,
    questions: Questions,
    stated: Stated,
    weight: Weights,
) -> Counted:
    fewest = MIN_RESPONDENTS if stated.min_respondents is None else stated.min_respondents
    names = grouping.names
    left_out = list(people)
    for (number, reason), groups in tally.left_out.items():
        left_out.append(LeftOut(questions.ids[number], reason, int(groups.sum())))
    order = np.argsort(np.array(names, object)).tolist()
    group, question, shares, respondents, influence = [], [], [], [], []
    for place, at in enumerate(order):
        for number in range(len(questions)):
            weights, persons = tally.weights[number][at], int(tally.people[number][at])
            if not persons:
                continue
            total = float(tally.totals[number][at])
            effective = total**2 / float(tally.squares[number][at])
            if effective < fewest:
                reason = f"fewer than {fewest} effective respondents"
                left_out.append(LeftOut(questions.ids[number], reason, persons))
                continue
            group.append(place)
            question.append(number)
            shares.append(weights / weights.sum())
            respondents.append(effective)
            influence.append(float(tally.largest[number][at]) / total)
    if not group:
        raise SurveyError(
            f"{data.file}: no group has {fewest} effective respondents to any "
            "question: --min-respondents sets how many are needed"
        )
    left_out = [own for own in left_out if own.people]
    data.notes.append(weight.said(grouping, min(respondents), max(respondents)))
    content = SurveyContent(
        name=stem_of(data.file),
        source=stated.source or f"people in {data.file.name}",
        licence=stated.licence or "not stated",
        questions=questions,
        answers=Answers(
            groups=[names[at] for at in order],
            group=np.array(group, np.int64),
            question=np.array(question, np.int64),
            shares=np.concatenate(shares),
            respondents=np.array(respondents),
            influence=np.array(influence),
            most_answered=dict(zip(names, tally.answered.tolist(), strict=False)),
        ),
        dropped=_summed(left_out),
        note="; ".join(data.notes),
    )
    return Counted(content, left_out)


def _summed(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """Return how many answers are left out, by reason."""
    sums: dict[str, int] = {}
    for own in left_out:
        reason = f"answers of people: {own.reason}" if own.question else f"people: {own.reason}"
        sums[reason] = sums.get(reason, 0) + own.people
    return sums
