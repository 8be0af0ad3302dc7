"""What completions are rewarded with, and which are not."""

import pickle
import subprocess
import sys
from itertools import product
from math import log, sqrt
from typing import Any

import numpy as np
import pytest

from pluralllm_app import Predictor, Question
from pluralllm_app.errors import AnswersError
from pluralllm_app.rewards import GroupReward, rendered
from pluralllm_app.rewards.counts import NONE, SCORED, SEVERAL
from pluralllm_app.rewards.free_text import FreeText
from pluralllm_app.use.group import Group
from tests.support.used import OFTEN, YES_NO

HARBOUR = YES_NO[0]
PROMPT = rendered(HARBOUR)
NEW = Question("Should the bridge change soon?", ["Yes", "No"])


def shares(group: Group, question: Question) -> dict[str, float]:
    return dict(group.predict(question)[0].shares)


def alignment(answered: list[float], predicted: list[float]) -> float:
    """1 - the Jensen-Shannon distance, term by term."""
    middle = [(a + p) / 2 for a, p in zip(answered, predicted, strict=True)]
    both = [*zip(answered, middle, strict=True), *zip(predicted, middle, strict=True)]
    return 1 - sqrt(sum(share * log(share / mid) for share, mid in both if share) / 2)


def test_a_completion_earns_the_share_of_its_option(north: Group) -> None:
    expected = shares(north, HARBOUR)
    reward = GroupReward(north)
    assert reward([PROMPT] * 3, ["A", "no.", "(B) No"]) == pytest.approx(
        [expected["Yes"], expected["No"], expected["No"]]
    )
    assert expected["No"] > 0.6  # North likes no change
    assert reward.__name__ == "North"


def test_what_names_no_option_or_several_has_no_reward_and_is_counted(north: Group) -> None:
    reward = GroupReward(north)
    completions = ["", "Hm.", "A or B", "\u0434\u0430", "x" * 1_000_000, "A"]
    rewards = reward([PROMPT] * 6, completions)
    assert rewards[:5] == [None] * 5
    assert rewards[5] is not None
    assert str(reward.counts) == (
        "6 completions, 1 scored; not scored: 3 name no option, 1 name several options, "
        "1 are too long to be an answer"
    )


@pytest.mark.parametrize("form", ["share", "distribution", "match", "text"])
def test_what_cannot_be_read_earns_what_one_says(north: Group, form: Any) -> None:
    """Also in forms that look at all samples; a prompt that asks nothing still has no reward."""
    reward = GroupReward(north, form, unread=-0.5)
    rewards = reward([PROMPT] * 3, ["", "Yes", "Yes"], question_id=["c0", "c0", None])
    assert rewards[0] == -0.5
    assert rewards[1] == GroupReward(north, form)([PROMPT], ["Yes"])[0]
    assert rewards[2] is None
    assert reward.counts[SCORED] == 1


def test_questions_are_named_by_columns(north: Group) -> None:
    reward = GroupReward(north)
    by_prompt = reward([PROMPT], ["A"])
    assert reward(["Well?"], ["A"], question_id=[HARBOUR.id]) == by_prompt
    assert reward(["Well?"], ["A"], question=["should the harbour change soon"]) == by_prompt
    expected = shares(north, NEW)["No"]
    new = reward(["Well?"], ["B"], question=[NEW.text], options=[list(NEW.options)])
    assert new == pytest.approx([expected])
    as_text = reward(["Well?"], ["B"], question=[NEW.text], options=['["Yes", "No"]'])
    assert as_text == new


def test_letters_follow_the_order_of_the_prompt(north: Group) -> None:
    reward = GroupReward(north)
    turned = rendered(Question(HARBOUR.text, ["No", "Yes"]))
    yes, no = reward([PROMPT] * 2, ["A", "B"])
    assert reward([turned] * 2, ["A", "B"]) == [no, yes]
    assert reward([turned], ["A"], question_id=[HARBOUR.id]) == [no]
    assert reward(["?"], ["A"], question_id=[HARBOUR.id], options=[["No", "Yes"]]) == [no]


def test_prompts_without_a_question_are_left_out_where_columns_say_so(north: Group) -> None:
    reward = GroupReward(north)
    rewards = reward(["2 + 2?", "Well?"], ["4", "A"], question_id=[None, HARBOUR.id])
    assert rewards[0] is None
    assert rewards[1] is not None
    assert "1 are of prompts without a question" in str(reward.counts)


def test_conversations(north: Group) -> None:
    """Prompts and completions as lists of messages, contents as texts and as parts."""
    reward = GroupReward(north)
    parts = [{"type": "text", "text": PROMPT}]
    prompt: list[dict[str, Any]] = [
        {"role": "system", "content": "Answer in one letter."},
        {"role": "user", "content": parts},
    ]
    completions = [
        [{"role": "assistant", "content": "A"}],
        [
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "B"},
            {"role": "assistant", "content": "A"},
        ],
    ]
    assert reward([prompt] * 2, completions) == reward([PROMPT] * 2, ["A", "A"])


@pytest.mark.parametrize(
    "completion",
    [
        [],
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}],
        # TRL ends so where no room is left for what the model says of it.
        [{"role": "assistant", "content": None}, {"role": "tool", "content": "A"}],
    ],
)
def test_a_model_that_has_not_come_to_answer_names_no_option(north: Group, completion: Any) -> None:
    reward = GroupReward(north)
    assert reward([PROMPT], [completion]) == [None]
    assert reward.counts[NONE] == 1


def test_the_distribution_of_all_samples(north: Group) -> None:
    """Three of four samples say A; the one that says nothing counts for nothing."""
    predicted = list(shares(north, HARBOUR).values())
    other = rendered(YES_NO[1])
    prompts = [PROMPT, other, PROMPT, PROMPT, PROMPT, PROMPT]
    rewards = GroupReward(north, "distribution")(prompts, ["A", "B", "A", "A", "B", "?"])
    expected = alignment([0.75, 0.25], predicted)
    assert [rewards[place] for place in (0, 2, 3, 4)] == pytest.approx([expected] * 4)
    assert rewards[1] == pytest.approx(alignment([0, 1], list(shares(north, YES_NO[1]).values())))
    assert rewards[5] is None


def test_a_match_is_better_for_answers_that_are_given_too_rarely(north: Group) -> None:
    """Two of three others say A as well, and none of B's says B; one alone has no others."""
    yes, no = shares(north, HARBOUR).values()
    reward = GroupReward(north, "match")
    expected = [yes - 2 / 3] * 3 + [no]
    assert reward([PROMPT] * 4, ["A", "A", "A", "B"]) == pytest.approx(expected)
    assert reward([PROMPT] * 2, ["A", "?"]) == [pytest.approx(yes), None]


def test_a_match_is_the_gradient_of_the_squared_distance(north: Group) -> None:
    """Over all draws of 3 samples: the sum over options of (q - p) times the change of log p."""
    q = np.array(list(shares(north, HARBOUR).values()))
    p = np.array([0.3, 0.7])
    reward = GroupReward(north, "match")
    score = {"A": 1 - p[0], "B": -p[0]}  # of the logit of A
    gradient = 0.0
    for draw in product("AB", repeat=3):
        rewards = reward([PROMPT] * 3, list(draw))
        chance = float(np.prod([p["AB".index(each)] for each in draw]))
        gradient += chance * sum(
            float(earned or 0) * score[each] for earned, each in zip(rewards, draw, strict=True)
        )
    change = p[0] * p[1]  # of p(A) with its logit
    assert gradient == pytest.approx(3 * change * ((q[0] - p[0]) - (q[1] - p[1])))


def test_where_a_match_ends_under_grpo(north: Group) -> None:
    """Over all draws of n = 4 samples of K = 2 options, whose mean GRPO takes off each reward.

    Nothing moves a policy any more that answers ((n - 1) q - 1 / K) / (n - 2).
    """
    n, q = 4, np.array(list(shares(north, HARBOUR).values()))
    p = ((n - 1) * q - 1 / 2) / (n - 2)
    assert 0 < p[0] < q[0]
    reward = GroupReward(north, "match")
    score = {"A": 1 - p[0], "B": -p[0]}  # of the logit of A
    gradient = 0.0
    for draw in product("AB", repeat=n):
        rewards = np.array(reward([PROMPT] * n, list(draw)), float)
        chance = float(np.prod([p["AB".index(each)] for each in draw]))
        gradient += chance * float((rewards - rewards.mean()) @ [score[each] for each in draw])
    assert gradient == pytest.approx(0, abs=1e-12)


def test_free_texts(north: Group) -> None:
    reward = GroupReward(north, "text")
    expected = shares(north, OFTEN[0])
    logged: dict[str, Any] = {}
    rewards = reward(
        ["Tell me!"] * 5,
        ["Often", "I miss it often", "never, never", "", "Rarely"],
        question_id=[OFTEN[0].id] * 5,
        log_metric=logged.__setitem__,
        log_extra=logged.__setitem__,
    )
    names = ["Often", "Often", "Never", None, "Rarely"]
    assert rewards == [None if name is None else pytest.approx(expected[name]) for name in names]
    ambiguity = logged["North ambiguity"]
    assert ambiguity[0] == 0
    assert 0 < ambiguity[1] < 1
    assert ambiguity[3] is None
    assert logged["rewards/North/unscored"] == pytest.approx(0.2)
    assert 0 < logged["rewards/North/ambiguity"] < 1


def test_half_a_character_is_left_out_of_a_free_text(north: Group) -> None:
    reward = GroupReward(north, "text")
    whole, half, only_half = reward(
        ["?"] * 3, ["Often", "Often\ud83d", "\ud83d"], question_id=[OFTEN[0].id] * 3
    )
    assert half == whole
    assert only_half is None


class Plane:
    """A survey whose texts are points: "3 4" lies at (3, 4)."""

    def embedded(self, questions: list[Question]) -> list[np.ndarray]:
        return [
            np.array([[float(part) for part in text.split()] for text in each.options], np.float16)
            if each.text == "Where?"
            else np.zeros((2, 2), np.float16)
            for each in questions
        ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0 0", (0, 0.0, SCORED)),
        ("3 0", (0, pytest.approx(3 / 7), SCORED)),
        ("6 3", (1, pytest.approx(5 / 45**0.5), SCORED)),
        ("5 9", (None, 1.0, SEVERAL)),  # as far from both
    ],
)
def test_how_ambiguous_a_free_text_is(text: str, found: tuple[Any, ...]) -> None:
    free_text = FreeText(Plane())  # type: ignore[arg-type]
    assert free_text.nearest(text, Question("Where?", ["0 0", "10 0"])) == found


def test_a_reward_travels_to_other_processes(north: Group) -> None:
    reward = GroupReward(north)
    expected = reward([PROMPT] * 2, ["A", "B"])
    again = pickle.loads(pickle.dumps(reward))
    assert again.__name__ == "North"
    assert again([PROMPT] * 2, ["A", "B"]) == expected


@pytest.mark.parametrize(
    ("prompts", "completions", "columns", "message"),
    [
        ([PROMPT], ["A", "B"], {}, "1 prompts and 2 completions"),
        ([PROMPT] * 2, ["A", "B"], {"question_id": ["c0"]}, "1 question_id and 2 completions"),
        (PROMPT, ["A"], {}, "prompts is one text"),
        ([PROMPT], ["A"], {"question_id": "c0"}, "question_id is one text"),
        ([PROMPT], [7], {}, "completion 1 is of type int"),
        ([PROMPT], [[{"content": 3}]], {}, "neither text nor parts"),
        ([PROMPT], [[{"content": [{"type": "text", "text": None}]}]], {}, "neither text nor parts"),
        (["?"], ["A"], {"question": ["\ud83d?"], "options": [["a", "b"]]}, "half of a character"),
        (["Is it so?"], ["A"], {}, "completion 1 asks no question that can be read"),
        (["Is it so?"], ["A"], {"question": ["Is it so?"]}, "none of the survey's"),
        (["?"], ["A"], {"question_id": ["c0"], "options": ["Yes, No"]}, "give a list of texts"),
        (["?"], ["A"], {"question_id": ["c0"], "options": [["Yes"]]}, "give these"),
        (["?"], ["A"], {"question_id": ["c0"], "options": [["Yes", "No", "So"]]}, "give these"),
        ([PROMPT], ["A"], {"question_id": ["c1"]}, "its columns name"),
        ([PROMPT], ["A"], {"question_id": ["c99"]}, "none of the survey's"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    north: Group, prompts: Any, completions: Any, columns: Any, message: str
) -> None:
    with pytest.raises(AnswersError, match=message):
        GroupReward(north)(prompts, completions, **columns)


def test_nothing_is_scored_where_there_is_nothing(north: Group) -> None:
    assert GroupReward(north)([], []) == []


def test_a_group_of_which_nothing_is_known_is_refused(predictor: Predictor) -> None:
    with pytest.raises(AnswersError, match="nothing is known of 'Nobody'"):
        GroupReward(predictor.group(name="Nobody"))


@pytest.mark.parametrize("unread", [float("nan"), float("inf")])
def test_what_an_unread_completion_earns_is_a_number(north: Group, unread: float) -> None:
    with pytest.raises(AnswersError, match="give a number"):
        GroupReward(north, unread=unread)


def test_there_is_no_other_form(north: Group) -> None:
    with pytest.raises(ValueError, match="'shares' is no form"):
        GroupReward(north, "shares")  # type: ignore[arg-type]


def test_importing_the_rewards_imports_nothing_heavy() -> None:
    program = "import sys, pluralllm_app.rewards; "
    program += "print(*sorted({'torch', 'flwr', 'ray', 'pandas', 'trl'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout.strip() == "", told
