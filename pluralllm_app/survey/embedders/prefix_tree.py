"""Prompts that begin alike, as one tree of tokens, so that a model computes each token once.

In a causal model a token depends only on the tokens before it. One pass over the tree therefore
gives each prompt the same result as a pass of its own, up to rounding: a node attends to itself and
its ancestors, and its position is its depth (the tree attention of SpecInfer, arXiv 2305.09781).
The tokens with which the prompts of all trees begin are run first; their keys and values are kept
and serve every batch.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate, takewhile
from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache


@dataclass(frozen=True)
class PrefixTree:
    """The distinct beginnings of some prompts: one node for each, numbered as they first occur.

    >>> PrefixTree.of([[5, 6, 7], [5, 6, 8, 9], [5, 6]])
    PrefixTree(tokens=[5, 6, 7, 8, 9], paths=[[0, 1, 2], [0, 1, 3, 4], [0, 1]])
    """

    tokens: list[int]  # [nodes]
    paths: list[list[int]]  # the nodes of each prompt, from its first token to its last

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]]) -> "PrefixTree":
        """Return the tree of the token ids of `prompts`, none of them empty."""
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
        paths = []
        for prompt in prompts:
            descent = accumulate(
                prompt,
                lambda parent, token: nodes.setdefault((parent, token), len(nodes)),
                initial=-1,
            )
            paths.append(list(descent)[1:])
        return cls([token for _, token in nodes], paths)


class Beginning:
    """The tokens with which every prompt begins, run through a model; there may be none."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        """Run `tokens` through a causal `model`."""
        self.length = len(tokens)
        # [length, dim]
        self.hidden = torch.zeros(
            0, model.config.get_text_config().hidden_size, device=model.device
        )
        self._cache = DynamicCache(config=model.config)
        if tokens:
            ids = torch.tensor([tokens], device=model.device)
            output = model(input_ids=ids, **{cache_argument(model): self._cache})
            self.hidden = output.last_hidden_state[0].float()

    def cache(self, batch: int) -> Any:
        """Return the keys and values for each of `batch` rows, to which the model may append."""
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(batch)
        return cache


def cache_argument(model: Any) -> str:
    """Return the name of a model's argument for keys and values.

    transformers 5 is renaming it, model by model.
    """
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    """Return the longest beginning that all `prompts` share and that leaves each a token."""
    # In sorted order, whatever the first and the last share, all between them share as well.
    pairs = zip(min(prompts), max(prompts), strict=False)
    shared = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return shared[: min(map(len, prompts)) - 1]


def batches(trees: Sequence[PrefixTree], budget: int) -> Iterator[list[int]]:
    """Yield batches of indices of similarly large trees, of at most `budget` tokens with padding.

    Which trees share a batch does not depend on the order of `trees`, so neither do the results.
    """
    order = sorted(
        range(len(trees)), key=lambda index: (-len(trees[index].tokens), trees[index].tokens)
    )
    while order:
        size = max(1, budget // len(trees[order[0]].tokens))
        yield order[:size]
        order = order[size:]


def takes_trees(model: Any, longest: int) -> bool:
    """Whether a transformers model can compute trees whose longest prompt has `longest` tokens.

    It can if it is causal in every layer, uses a given mask and given positions unchanged, and has
    neither recurrent layers nor attention windows shorter than a prompt.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    layers = getattr(config, "layer_types", None)
    kinds = set(layers or ["sliding_attention" if window else "full_attention"])
    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    return (
        bool(model.is_backend_compatible())
        and bool(causal)
        and all(causal)
        and getattr(config, "is_causal", True)
        and "position_ids" in signature(model.forward).parameters
        and kinds <= {"full_attention", "sliding_attention"}
        and ("sliding_attention" not in kinds or longest <= window)
    )


def padded_tokens(trees: Sequence[PrefixTree], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids, int64 [batch, nodes], and which of them are real, bool; the rest pad."""
    sizes = torch.tensor([len(tree.tokens) for tree in trees])
    real = torch.arange(int(sizes.max())) < sizes[:, None]
    ids = torch.full(real.shape, padding)
    ids[real] = torch.tensor([token for tree in trees for token in tree.tokens])
    return ids, real


def tree_inputs(
    trees: Sequence[PrefixTree], nodes: int, beginning: Beginning, model: Any
) -> dict[str, Any]:
    """Return what `model` needs besides the ids [batch, nodes] to continue `beginning`."""
    device, dtype = model.device, model.dtype
    attends, depths = tree_attention(trees, nodes)
    attends = F.pad(attends, (beginning.length, 0), value=True).to(device)
    # A mask that is added: not every implementation of attention accepts a boolean one.
    mask = torch.zeros(attends.shape, dtype=dtype, device=device)
    mask.masked_fill_(~attends, torch.finfo(dtype).min)
    return {
        "attention_mask": mask[:, None],
        "position_ids": depths.to(device) + beginning.length,
        cache_argument(model): beginning.cache(len(trees)),
    }


def tree_attention(trees: Sequence[PrefixTree], nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each node attends to, bool [batch, nodes, nodes], and its depth, int64."""
    attends = torch.zeros(len(trees), nodes, nodes, dtype=torch.bool)
    depths = torch.zeros(len(trees), nodes, dtype=torch.int64)
    before = torch.ones(nodes, nodes, dtype=torch.bool).tril()
    for row, tree in enumerate(trees):
        for path in map(torch.tensor, tree.paths):
            attends[row, path[:, None], path] = before[: len(path), : len(path)]
            depths[row, path] = torch.arange(len(path))
    return attends, depths


def path_states(
    trees: Sequence[PrefixTree], hidden: torch.Tensor, beginning: Beginning | None = None
) -> Iterator[torch.Tensor]:
    """Yield float32 [tokens, dim], the hidden states of each prompt.

    `hidden`, [batch, nodes, dim], is that of the trees' nodes; `beginning` has its own.
    """
    for tree, nodes in zip(trees, hidden.float(), strict=True):
        for path in tree.paths:
            own = nodes[path]
            yield own if beginning is None else torch.cat([beginning.hidden, own])
