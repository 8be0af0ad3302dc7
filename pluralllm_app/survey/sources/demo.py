"""The demo survey: synthetic groups, questions and answers, generated from a seed.

Each group has a position in a space of two values, openness and common provision. Each option has a
stance in the same space. The phrases in the texts of question and option express that stance, so a
predictor can learn it from their embeddings. The share of group g that picks option o is

    softmax over the options of ( CONVICTION * weight(topic) * position(g) . stance(o) + appeal(o) )

where weight(topic) says how strongly the topic stirs values, and appeal(o) is common to all groups:
some phrases and the milder answers of a scale are liked by everyone. The observed shares are those
of a multinomial sample of respondents, and every group skips some of the questions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pluralllm_app.core.seeding import generator
from pluralllm_app.core.segments import Doubles, Ints, segment_sums
from pluralllm_app.survey.content import Answers, Questions, SurveyContent, question_id

TRAIN_GROUPS = (
    "Aldermoor", "Ashwyn", "Brivane", "Bryndale", "Calverra", "Corvessa", "Dorwick", "Dunmarrow",
    "Eastmere", "Elvanta", "Farrowick", "Fennbrook", "Galdoria", "Glenmora", "Harrowby", "Hestwick",
    "Oakhollow", "Ostmere", "Pellworth", "Quillan", "Ravensea", "Selmarch", "Tarnholt", "Velmora",
)  # fmt: skip
EVALUATION_GROUPS = ("Irrendal", "Jorvessey", "Kelmara", "Lowenfurt", "Mirrowen", "Nordhaven")

CONVICTION = 1.6  # how strongly values move answers; at 0 only appeal matters
CENTRE, SPREAD = (0.5, 0.5), (1.0, 0.6)  # of the groups' positions; openness divides them more
RESPONDENTS = (400, 1200)  # people asked per group, at least and at most
ANSWERED = (0.65, 0.95)  # fraction of the questions a group answers, at least and at most

Stance = Doubles  # [2] the position that an option expresses

# The two ends of each value: what people at that end would do about a topic.
PHRASES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (  # openness
        ("open {} to newcomers", "open {} to foreign ideas", "open {} to our neighbours"),
        ("guard {} against outsiders", "guard {} for our own people", "guard {} from fashions"),
    ),
    (  # common provision
        ("fund {} from common taxes", "fund {} for everyone alike", "fund {} as a public service"),
        ("sell {} to private firms", "sell {} by the visit", "sell {} to the best bidder"),
    ),
)
TOPICS = (
    "schooling", "health care", "the farmland", "the harbour", "the library", "the local radio",
    "the summer festival", "the railway", "public housing", "the food market", "the water supply",
    "the power station", "the night watch", "the sports club", "the museum", "craft training",
    "elder care", "the fishing fleet", "the forest", "the mountain lodge", "the post office",
    "the town hall", "child care", "the concert house",
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """A form of question whose ordered options say how much one favours a phrase."""

    question: str
    options: tuple[str, ...]  # from most in favour to least

    @property
    def degrees(self) -> Stance:
        """[options] from 1, in favour of the phrase, to -1, against it."""
        return np.linspace(1, -1, len(self.options))


SCALES = (
    Scale(
        "Do you agree or disagree that we should {}?",
        ("Strongly agree", "Agree", "Neither agree nor disagree", "Disagree", "Strongly disagree"),
    ),
    Scale(
        "How important is it to you to {}?",
        ("Very important", "Rather important", "Not very important", "Not important at all"),
    ),
    Scale("Would it be good or bad to {}?", ("Good", "Neither good nor bad", "Bad")),
    Scale("Would you vote for a plan to {}?", ("Yes, for it", "No, against it")),
)
CHOICES = (  # form of question, number of options, number of questions per topic
    ("Which of these two comes closer to your view on {}?", 2, 4),
    ("What should come first when it comes to {}?", 3, 3),
    ("Which plan for {} would you back?", 4, 3),
    ("Of these aims for {}, which one matters most to you?", 6, 2),
)
SCALED_PER_TOPIC = 5  # with the 12 choices and 24 topics: 408 questions


@dataclass(frozen=True)
class _Question:
    text: str
    options: tuple[str, ...]
    values: tuple[float, ...] | None
    stances: Doubles  # [options, 2]
    appeal: Doubles  # [options]


def demo(seed: int = 0) -> SurveyContent:
    """Generate the demo survey; the same seed gives the same survey in every process."""
    drawn = [question for topic in TOPICS for question in _questions_on(topic, seed)]
    questions = Questions(
        ids=[question_id(question.text, question.options) for question in drawn],
        texts=[question.text for question in drawn],
        options=[question.options for question in drawn],
        values=[question.values for question in drawn],
    )
    stances = np.concatenate([question.stances for question in drawn])
    appeal = np.concatenate([question.appeal for question in drawn])
    names = TRAIN_GROUPS + EVALUATION_GROUPS
    observed = [_observe(name, seed, questions, stances, appeal) for name in names]
    answers = Answers(
        groups=names,
        group=np.repeat(np.arange(len(names)), [len(answered) for answered, _, _ in observed]),
        question=np.concatenate([answered for answered, _, _ in observed]),
        shares=np.concatenate([shares for _, shares, _ in observed]),
        respondents=np.concatenate([respondents for _, _, respondents in observed]),
        influence=np.concatenate([1 / respondents for _, _, respondents in observed]),
    )
    return SurveyContent(
        name="Demo survey",
        source=f"synthetic: generated by pluralllm_app with seed {seed}, no person was asked",
        licence="same as pluralllm_app (synthetic data)",
        questions=questions,
        answers=answers,
        synthetic=True,
        train=TRAIN_GROUPS,
        evaluation=EVALUATION_GROUPS,
        names={name: f"People in {name}" for name in names},
    )


def _position(name: str, seed: int) -> Stance:
    """Return a group's [2] position."""
    rng = generator(seed, "demo position", name)
    position: Stance = np.array(CENTRE) + np.array(SPREAD) * rng.normal(size=len(PHRASES))
    return position


def _questions_on(topic: str, seed: int) -> Iterator[_Question]:
    rng = generator(seed, "demo questions", topic)
    weight = rng.uniform(0.8, 1.2)
    phrases = [
        (phrase, axis, sign)
        for axis, ends in enumerate(PHRASES)
        for sign, end in zip((1, -1), ends, strict=True)
        for phrase in end
    ]
    stances = np.zeros((len(phrases), len(PHRASES)))
    for row, (_, axis, sign) in enumerate(phrases):
        stances[row, axis] = sign * weight
    appeal = np.array([_appeal(phrase, seed) for phrase, _, _ in phrases])
    for number, row in enumerate(rng.permutation(len(phrases))[:SCALED_PER_TOPIC]):
        scale = SCALES[number % len(SCALES)]
        yield _Question(
            scale.question.format(phrases[row][0].format(topic)),
            scale.options,
            tuple(float(value) for value in range(len(scale.options), 0, -1)),
            scale.degrees[:, None] * stances[row],
            scale.degrees * appeal[row] - 0.8 * scale.degrees**2,
        )
    for text, size, repeats in CHOICES:
        # Questions of one form share no option, so no two of them are the same.
        for rows in rng.permutation(len(phrases)).reshape(-1, size)[:repeats]:
            yield _Question(
                text.format(topic),
                tuple(phrases[row][0].format("it").capitalize() for row in rows),
                None,
                stances[rows],
                appeal[rows],
            )


def _appeal(phrase: str, seed: int) -> float:
    """Return how much everyone likes a phrase, whatever the topic."""
    return float(generator(seed, "demo appeal", phrase).normal(0, 0.5))


def _observe(
    name: str, seed: int, questions: Questions, stances: Stance, appeal: Stance
) -> tuple[Ints, Doubles, Doubles]:
    """Return the questions a group answers [A], its observed shares, and respondents [A]."""
    counts = questions.counts
    scores = CONVICTION * stances @ _position(name, seed) + appeal
    expected = np.exp(scores)
    expected /= np.repeat(segment_sums(expected, counts), counts)
    rng = generator(seed, "demo answers", name)
    respondents = int(rng.integers(*RESPONDENTS, endpoint=True))
    answered = np.flatnonzero(rng.random(len(questions)) < rng.uniform(*ANSWERED))
    # numpy draws multinomials from rows of equal length: pad with options of probability 0.
    padded = np.zeros((len(questions), int(counts.max())))
    real = np.arange(padded.shape[1]) < counts[:, None]
    padded[real] = expected
    drawn = rng.multinomial(respondents, padded)[answered]
    shares = drawn[real[answered]] / respondents
    return answered, shares, np.full(len(answered), float(respondents))
