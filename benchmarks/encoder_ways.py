"""Ways to run a small encoder on one core, each in turn with ours: what could make it faster.

Ours is transformers' model with numpy's products, in batches of BATCH_TOKENS. The others are ours
with one thing changed, or the whole network written by hand, without what transformers does beside
the products: queries, keys and values by one product, sums in place, no mask without padding. Times
are seconds of this thread, so they count where other work runs, too.

    python benchmarks/encoder_ways.py --survey data/globalopinionqa --model ./all-MiniLM-L6-v2
"""

import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from measuring import Results, parse, publish
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer
from transformers.activations import GELUActivation

from pluralllm_app.survey.embedders.processor import use_numpy
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.transformer import BATCH_TOKENS
from pluralllm_app.survey.prepared import PreparedSurvey

Batch = tuple[Tensor, Tensor]  # token ids, int64 [prompts, tokens], and which are real, bool
Product = Callable[[Tensor, nn.Linear, bool], Tensor]


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True),
            parser.add_argument("--model", type=Path, required=True, help="a BERT"),
            parser.add_argument("--batches", type=int, default=4, help="of those of the survey"),
            parser.add_argument("--repeats", type=int, default=5),
        ),
    )
    questions = PreparedSurvey.open(arguments.survey).questions()
    prompts = chain.from_iterable(map(TEMPLATES["plain"], questions.texts, questions.options))
    tokens = AutoTokenizer.from_pretrained(arguments.model)([*prompts])["input_ids"]
    batches = batched(sorted(tokens, key=len), BATCH_TOKENS["cpu"])
    drawn = np.linspace(0, len(batches) - 1, arguments.batches).astype(int)
    batches = [batches[at] for at in drawn]
    plain = AutoModel.from_pretrained(arguments.model).eval()
    ours = deepcopy(plain)
    use_numpy(ours)
    in_place = deepcopy(ours)
    for module in in_place.modules():
        if isinstance(module, GELUActivation):
            module.forward = torch.ops.aten.gelu_
    ways: dict[str, Callable[[], Tensor]] = {"ours": lambda: by_transformers(ours, batches)}
    for size in (256, 512):
        smaller = [part for batch in batches for part in split(batch, size)]
        ways[f"{size} tokens a batch"] = lambda parts=smaller: by_transformers(ours, parts)
    ways["the activation in place"] = lambda: by_transformers(in_place, batches)
    ways["torch's products"] = lambda: by_transformers(plain, batches)
    with torch.inference_mode():
        joined = deepcopy(plain)
        join(joined)
        ways["by hand, torch's products"] = lambda: by_hand(joined, batches, product)
        packed = {
            module: torch.ops.mkldnn._reorder_linear_weight(module.weight)
            for module in joined.modules()
            if isinstance(module, nn.Linear)
        }
        ways["by hand, oneDNN's with packed weights"] = lambda: by_hand(
            joined, batches, lambda *given: packed_product(packed, *given)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this way is being moved out of torch
        eight = torch.ao.quantization.quantize_dynamic(deepcopy(plain), {nn.Linear}, torch.qint8)
    ways["weights and states in 8 bits"] = lambda: by_transformers(eight, batches)
    torch.set_num_threads(1)
    with torch.inference_mode(), threadpool_limits(1):
        results = repeated(tokens) | compare(ways, batches, plain, arguments.repeats)
        publish("encoder_ways", results, arguments.json)


def repeated(tokens: Sequence[Sequence[int]]) -> Results:
    """Count what is the same in several prompts, and could be computed once."""
    places = {place for ids in tokens for place in enumerate(ids)}
    return {
        "prompts of the survey": len(tokens),
        "of these different": len({*map(tuple, tokens)}),
        "tokens of the survey": sum(map(len, tokens)),
        "different tokens and places, of the first layer": len(places),
    }


def compare(
    ways: dict[str, Callable[[], Tensor]], batches: Sequence[Batch], model: nn.Module, repeats: int
) -> Results:
    """Time all ways in turn."""
    rows = {name: F.normalize(way(), dim=-1) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(spent(way))
    linear = sum(own.weight.numel() for own in model.modules() if isinstance(own, nn.Linear))
    a, b = torch.randn(2, 512, 512)
    peak = 2 * 512**3 / min(spent(lambda: a @ b) for _ in range(50))
    count = sum(int(real.sum()) for _, real in batches)
    results: Results = {"tokens run": count, "ours, CPU s": median(times["ours"])}
    results["peak of a product, GFLOP/s"] = peak / 1e9
    results["linear layers at the peak, CPU s"] = 2 * linear * count / peak
    for name in [*ways][1:]:
        ratios = [ours / own for ours, own in zip(times["ours"], times[name], strict=True)]
        results[f"ours / {name}"] = median(ratios)
        results[f"ours / {name}, least and most"] = [min(ratios), max(ratios)]
        difference = (rows[name] - rows["ours"]).abs().max()
        results[f"{name}, largest difference at length 1"] = float(difference)
    return results


def spent(action: Callable[[], object]) -> float:
    start = time.thread_time()
    action()
    return time.thread_time() - start


def batched(tokens: Sequence[Sequence[int]], most: int) -> list[Batch]:
    """Batches of prompts, whose lengths rise, of at most so many tokens with padding."""
    batches, start = [], 0
    while start < len(tokens):
        end = start + 1
        while end < len(tokens) and (end + 1 - start) * len(tokens[end]) <= most:
            end += 1
        own = [torch.tensor(ids) for ids in tokens[start:end]]
        ids = nn.utils.rnn.pad_sequence(own, batch_first=True)
        batches.append((ids, torch.arange(ids.shape[1]) < torch.tensor([*map(len, own)])[:, None]))
        start = end
    return batches


def split(batch: Batch, most: int) -> list[Batch]:
    size = max(1, most // batch[0].shape[1])
    return list(zip(batch[0].split(size), batch[1].split(size), strict=True))


def pooled(hidden: Tensor, real: Tensor) -> Tensor:
    return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def by_transformers(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """Return float32 [prompts, dim]."""
    return torch.cat(
        [
            pooled(model(input_ids=ids, attention_mask=real.long()).last_hidden_state, real)
            for ids, real in batches
        ]
    )


def join(model: nn.Module) -> None:
    """Give each layer one product for queries, keys and values."""
    for layer in model.encoder.layer:
        parts = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
        own = nn.Linear(parts[0].in_features, 3 * parts[0].out_features)
        own.weight.data = torch.cat([part.weight for part in parts])
        own.bias.data = torch.cat([part.bias for part in parts])
        layer.joined = own


def product(x: Tensor, layer: nn.Linear, activated: bool) -> Tensor:
    found = torch.mm(x, layer.weight.T).add_(layer.bias)
    return torch.ops.aten.gelu_(found) if activated else found


def packed_product(
    packed: dict[nn.Linear, Tensor], x: Tensor, layer: nn.Linear, activated: bool
) -> Tensor:
    kind = ("gelu", [], "none") if activated else ("none", [], "")
    return torch.ops.mkldnn._linear_pointwise(x, packed[layer], layer.bias, *kind)


def by_hand(model: nn.Module, batches: Sequence[Batch], multiply: Product) -> Tensor:
    """Return float32 [prompts, dim], by nothing but what the network needs."""
    heads, table = model.config.num_attention_heads, model.embeddings
    rows = []
    for ids, real in batches:
        size, longest = ids.shape
        x = F.embedding(ids, table.word_embeddings.weight)
        x += table.position_embeddings.weight[:longest] + table.token_type_embeddings.weight[0]
        x = table.LayerNorm(x).flatten(0, 1)
        mask = None if real.all() else real[:, None, None]
        for layer in model.encoder.layer:
            states = multiply(x, layer.joined, False)
            q, k, v = states.view(size, longest, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
            after = layer.attention.output
            x = after.LayerNorm(multiply(mixed.reshape(x.shape), after.dense, False).add_(x))
            inner = multiply(x, layer.intermediate.dense, True)
            x = layer.output.LayerNorm(multiply(inner, layer.output.dense, False).add_(x))
        rows.append(pooled(x.view(size, longest, -1), real))
    return torch.cat(rows)


if __name__ == "__main__":
    main()
