import pytest

from pluralllm_app.core.suggestions import did_you_mean
from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.role_assignment import named_roles, split_roles

COUNTS = {"Germany": 50, "Ghana": 40, "Peru": 30, "Japan": 20, "China": 10}


def test_named_roles():
    roles = named_roles(COUNTS, ["Peru", "Ghana"], ["Japan"], 20)
    assert roles == {"Peru": "train", "Ghana": "train", "Japan": "evaluation"}


def test_all_others_train_where_only_evaluation_is_named():
    roles = named_roles(COUNTS, [], ["Peru"], 20)
    assert roles == {
        **dict.fromkeys(["Germany", "Ghana", "Japan"], "train"),
        "Peru": "evaluation",
    }


@pytest.mark.parametrize(
    ("train", "evaluation", "fault"),
    [
        (["Germny"], [], "did you mean 'Germany'"),
        (["Peru"], ["Peru"], "'Peru' is named for both roles"),
        (["China"], [], "'China' answers 10 questions, fewer than 20"),
        ([], ["Germany", "Ghana", "Peru", "Japan"], "nothing to train on"),
    ],
)
def test_wrong_names_are_refused(train, evaluation, fault):
    with pytest.raises(SurveyError, match=fault):
        named_roles(COUNTS, train, evaluation, 20)


@pytest.mark.parametrize(
    ("train", "evaluation", "remedy"),
    [
        ([], ["Peru,Japan"], "--evaluation Peru --evaluation Japan"),
        ([], ["Peru; Japan"], "--evaluation Peru --evaluation Japan"),
        (["Ghana, New Peru"], ["Japan"], "--train Ghana --train 'New Peru'"),
    ],
)
def test_groups_in_one_option_are_told_apart(train, evaluation, remedy):
    with pytest.raises(SurveyError, match=f"are several groups: repeat the option, {remedy}$"):
        named_roles(COUNTS | {"New Peru": 30}, train, evaluation, 20)


def test_a_group_with_a_comma_in_its_name_is_one():
    counts = COUNTS | {"Peru, North": 30}
    assert (
        named_roles(counts, ["Peru", "Ghana"], ["Peru, North"], 20)["Peru, North"] == "evaluation"
    )


def test_split_is_seeded_and_over_qualified_groups():
    roles = split_roles(COUNTS, 0.5, 20, seed=3)
    assert set(roles) == {"Germany", "Ghana", "Peru", "Japan"}
    assert sorted(roles.values()) == ["evaluation", "evaluation", "train", "train"]
    assert roles == split_roles(dict(reversed(COUNTS.items())), 0.5, 20, seed=3)
    assert len({tuple(split_roles(COUNTS, 0.5, 20, seed).values()) for seed in range(9)}) > 1


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_leaves_each_role_a_group(fraction):
    assert set(split_roles(COUNTS, fraction, 1, seed=0).values()) == {"train", "evaluation"}


def test_impossible_splits_are_refused():
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(SurveyError, match="between 0 and 1"):
            split_roles(COUNTS, fraction, 1, seed=0)
    with pytest.raises(SurveyError, match="1 of 5 groups answer at least 45"):
        split_roles(COUNTS, 0.5, 45, seed=0)


def test_suggestions():
    assert did_you_mean("germany", COUNTS) == "did you mean 'Germany'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known are 'a', 'b'"
    assert did_you_mean("zzz", [f"group {n:02}" for n in range(20)]).endswith("and 8 more")
