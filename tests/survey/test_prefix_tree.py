"""Trees of prompts against a pass over each prompt, with tiny random models."""

from itertools import chain

import numpy as np
import pytest
import torch

from pluralllm_app.survey.embedders.prefix_tree import (
    Beginning,
    PrefixTree,
    batches,
    common_beginning,
    padded_tokens,
    path_states,
    takes_trees,
    tree_attention,
    tree_inputs,
)
from pluralllm_app.survey.embedders.templates import TEMPLATES
from tests.support.tiny_models import make_model

SIZE = {"vocab_size": 128, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE = {"intermediate_size": 32, "num_key_value_heads": 1}
OPTIONS = [
    ["yes", "no, not at all", "n"],
    ["the only one"],
    ["very", "very much", "very much so", "very"],  # beginnings of each other, and equal
]
TEXTS = ["tea?", "Is the sea near to where you live?", "How?"]


def make(kind: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = make_model(kind, **SIZE, **more).eval()
    for weight in model.parameters():  # as initialised, attention would hardly matter
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def prompts(template: str) -> list[list[list[int]]]:
    """The bytes of each question's prompts stand in for its tokens."""
    return [
        [list(prompt.encode()) for prompt in TEMPLATES[template](text, options)]
        for text, options in zip(TEXTS, OPTIONS, strict=True)
    ]


@pytest.mark.parametrize("template", ["plain", "alpaca"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "GPT2"])
@torch.inference_mode()
def test_a_tree_equals_a_pass_over_each_prompt(kind, attention, template):
    questions = prompts(template)
    longest = max(len(prompt) for question in questions for prompt in question)
    model = {
        "Llama": lambda **more: make("Llama", **SHAPE, **more),
        "Mistral": lambda **more: make("Mistral", **SHAPE, sliding_window=longest, **more),
        "GPT2": lambda **more: make("GPT2", **more),
    }[kind](attn_implementation=attention)
    assert takes_trees(model, longest)
    common = common_beginning([prompt for question in questions for prompt in question])
    assert bool(common) == (template == "alpaca")
    beginning = Beginning(model, common)
    trees = [PrefixTree.of([prompt[len(common) :] for prompt in each]) for each in questions]
    ids, _ = padded_tokens(trees, padding=0)
    inputs = tree_inputs(trees, ids.shape[1], beginning, model)
    hidden = model(input_ids=ids, **inputs).last_hidden_state
    all_prompts = list(chain.from_iterable(questions))
    in_trees = path_states(trees, hidden, beginning)
    for prompt, in_tree in zip(all_prompts, in_trees, strict=True):
        alone = model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
        assert in_tree.shape == alone.shape
        assert (in_tree - alone).norm() < 1e-5 * alone.norm()


def test_the_common_beginning_leaves_every_prompt_a_token():
    assert common_beginning([[5, 6, 7], [5, 6, 8]]) == [5, 6]
    assert common_beginning([[5, 6, 7], [5, 6]]) == [5]
    assert common_beginning([[5], [6]]) == []


def test_each_beginning_is_one_node():
    tree = PrefixTree.of([[5, 6, 7], [5, 8], [5, 6], [5, 6, 7]])
    assert tree.tokens == [5, 6, 7, 8]
    assert tree.paths == [[0, 1, 2], [0, 3], [0, 1], [0, 1, 2]]
    attends, depths = tree_attention([tree], 5)
    assert attends[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],  # padding
    ]
    assert depths.tolist() == [[0, 1, 2, 1, 0]]


def test_batches_do_not_depend_on_the_order_of_trees():
    sizes = [3, 9, 5, 5, 2, 9, 4]
    trees = [PrefixTree.of([list(range(start, start + n))]) for start, n in enumerate(sizes)]
    plan = list(batches(trees, budget=10))
    assert sorted(chain.from_iterable(plan)) == list(range(7))
    assert [[sizes[index] for index in batch] for batch in plan] == [[9], [9], [5, 5], [4, 3], [2]]
    shuffled = np.random.default_rng(0).permutation(7)
    again = batches([trees[index] for index in shuffled], budget=10)
    assert [[int(shuffled[index]) for index in batch] for batch in again] == plan


def test_which_models_take_trees():
    assert takes_trees(make("Llama", **SHAPE), 1000)
    assert not takes_trees(make("Llama", **SHAPE, is_causal=False), 5)  # made an encoder
    assert takes_trees(make("GPT2"), 5)
    assert not takes_trees(make("Bert", intermediate_size=32), 5)
    assert not takes_trees(make("Bloom"), 5)  # positions are those in the row
    mistral = make("Mistral", **SHAPE, sliding_window=8)
    assert takes_trees(mistral, 8)
    assert not takes_trees(mistral, 9)
