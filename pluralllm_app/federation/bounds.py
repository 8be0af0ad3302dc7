"""Every number that a node sends, what it may be, and what happens where it is not: one table.

docs/security.md shows it. What reads a message asks `check` and `within` here, or says the same
rule at its place, where the rule ties numbers to each other; a test sends each number out of its
bounds and looks at what happens.
"""

from dataclasses import dataclass

from pluralllm_app.survey.info import MOST_DIM

NODE = "the node is refused, by name"
UPDATE = "the update is refused, and the failure recorded"
SUM = "the group is not in the sum, and the failure recorded"
SCORES = "the scores are refused, and the failure recorded"
RECORDED = "the bound is recorded in its place"
REWARDS = "no reward is given, and the command names the group"
REQUEST = "the SuperLink answers 403"

MOST_TEXT = 1000  # characters of a text
MOST_QUESTIONS = 10**7  # of a survey
MOST_LOSS = 1e12  # nats, of either sign
MOST_SHARES = 1.00001  # of one question: they are kept in float32
OBJECTS_TIMES, OBJECTS_MORE = 8, 100  # parts of a reply, by those of the message; see the fence
MOST_HEADER = 2**16  # bytes of the names and shapes of a message's arrays
MOST_DIVERGENCE = 1.0  # nats; none is above log 2


@dataclass(frozen=True)
class Bound:
    """What a field of a message from a node may be."""

    message: str
    field: str
    bound: str  # in words
    otherwise: str  # what happens where it is something else
    least: float | None = None  # None: it follows from what else is known
    most: float | None = None


_LOSS = "-1e12 to 1e12"
BOUNDS = (
    Bound("query", "each text", f"at most {MOST_TEXT} characters, none hidden", NODE, 0, MOST_TEXT),
    Bound("query", "group, role", "those registered for the node's key", NODE),
    Bound("query", "nodes", "0 in a deployment", NODE, 0, 0),
    Bound(
        "query",
        "survey_questions",
        f"1 to {MOST_QUESTIONS}, and that of the server's questionnaire",
        NODE,
        1,
        MOST_QUESTIONS,
    ),
    Bound(
        "query",
        "dim",
        f"1 to {MOST_DIM}, and that of the server's questionnaire",
        NODE,
        1,
        MOST_DIM,
    ),
    Bound("query", "fingerprint, metric", "those of the server's questionnaire", NODE),
    Bound("query", "version", "that of the server's app and torch", NODE),
    Bound("query", "questions", "0 to survey_questions, and enough for the settings", NODE),
    Bound("query", "pool", "0 to questions", NODE),
    Bound("train", "num-examples", "pool, as the query said", UPDATE),
    Bound("train", "loss", _LOSS, UPDATE, -MOST_LOSS, MOST_LOSS),
    Bound("train", "js-divergence", f"0 to {MOST_DIVERGENCE:g}", UPDATE, 0, MOST_DIVERGENCE),
    Bound("train", "seconds", "0 to round-timeout", f"above: {RECORDED}; below: refused", 0),
    Bound("train", "arrays: weights", "as many as the network has, float32 and finite", UPDATE),
    Bound(
        "train",
        "arrays: sums of factors",
        "such as the answers of one group can give",
        UPDATE,
    ),
    Bound(
        "train",
        "arrays: masked words",
        "as many as the sum has, uint64; what they hide cannot be checked",
        UPDATE,
    ),
    Bound("secure sum", "weight", "pool, as the query said; 1 with weighting = uniform", SUM),
    Bound(
        "secure sum",
        "keys, shares, what opens it",
        "of their lengths, for all of the cohort, signed by the group",
        SUM,
    ),
    Bound(
        "train",
        "share of the mean",
        "weight-cap of 3 or more updates; of masked ones, if their groups keep to it",
        "the weight is lowered, the others divide the rest in proportion; it is logged",
    ),
    Bound("evaluate", "number of scores", "as many as the group has to score", SCORES),
    Bound("evaluate", "questions", "ascending, 0 to survey_questions - 1", SCORES, 0),
    Bound("evaluate", "scores", "0 to 1", SCORES, 0, 1),
    Bound("evaluate", "masked scores", "as many words as their sum has, uint64", SCORES),
    Bound("evaluate", "coverage", "0 to 1, one for each level", SCORES, 0, 1),
    Bound("evaluate", "loss", _LOSS, SCORES, -MOST_LOSS, MOST_LOSS),
    Bound("evaluate", "seconds", "0 to round-timeout", f"above: {RECORDED}; below: refused", 0),
    Bound("query.reward", "answered, shares", "0 to 1, as many as options were asked for", REWARDS),
    Bound(
        "query.reward",
        "shares of a question",
        f"at most {MOST_SHARES:g} in all",
        REWARDS,
        0,
        MOST_SHARES,
    ),
    Bound(
        "query.reward",
        "masked words",
        "as many as the sum has, uint64; what they hide cannot be checked",
        SUM,
    ),
    Bound("any reply", "source node, number of messages", "the caller's own id, 1", REQUEST),
    Bound(
        "any reply",
        "number of objects it names",
        f"{OBJECTS_TIMES} times those of its message, and {OBJECTS_MORE} more",
        REQUEST,
    ),
    Bound(
        "any reply",
        "names and shapes of its arrays",
        f"at most {MOST_HEADER:,} bytes",
        "the reply is refused, and the failure recorded",
    ),
    Bound(
        "any reply",
        "what it says of an error",
        f"a line of at most {MOST_TEXT} characters",
        "the rest is left out",
    ),
    Bound("any reply", "duration that Flower adds", "0 or more, finite", REQUEST, 0),
)
_BY_FIELD = {(bound.message, bound.field): bound for bound in BOUNDS}


def check(message: str, field: str, value: float) -> None:
    """Raise ValueError unless a number lies within the bounds of its field."""
    bound = _BY_FIELD[message, field]
    if not (bound.least is None or value >= bound.least):
        raise ValueError(f"its {field} is below {bound.least:g}")
    if not (bound.most is None or value <= bound.most):
        raise ValueError(f"its {field} is above {bound.most:g}")


def table() -> list[str]:
    """The table's lines, in Markdown."""
    rows = [("message", "field", "bound", "else"), ("---",) * 4]
    rows += [(each.message, each.field, each.bound, each.otherwise) for each in BOUNDS]
    return [f"| {' | '.join(row)} |" for row in rows]
