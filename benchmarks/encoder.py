"""Embedding with a sentence embedder, ours against one batch after another, in one run.

The other way is what `prepare` did before: prompts sorted by length, batches of as many tokens, and
each operation of a batch shared between torch's threads. CPU seconds, in turn with it, tell more
than the clock where other work runs; without other work the clock counts. The floor is
what the products of the linear layers alone take at the rate of the fastest product.

    python benchmarks/encoder.py --survey data/globalopinionqa --model ./all-MiniLM-L6-v2
"""

import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import Results, matrix_peak, parse, publish, seconds
from rich.console import Console
from transformers import AutoModel, AutoTokenizer

from pluralllm_app.core.segments import Floats
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.transformer import BATCH_TOKENS, TransformerEmbedder
from pluralllm_app.survey.prepared import PreparedSurvey


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--survey", type=Path, required=True),
            parser.add_argument("--model", type=Path, required=True, help="with mean pooling"),
            parser.add_argument("--questions", type=int, default=2000),
            parser.add_argument("--repeats", type=int, default=3),
        ),
    )
    questions = PreparedSurvey.open(arguments.survey).questions()
    drawn = np.random.default_rng(0).permutation(len(questions))[: arguments.questions]
    questions = questions.select(np.sort(drawn))
    prompts = list(chain.from_iterable(map(TEMPLATES["plain"], questions.texts, questions.options)))
    embedder = TransformerEmbedder(str(arguments.model), "plain")
    model = AutoModel.from_pretrained(arguments.model).eval()
    tokens = AutoTokenizer.from_pretrained(arguments.model)(prompts)["input_ids"]
    rows: dict[str, Floats] = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as place:
            found = embedder.embed(questions, Console(quiet=True), Path(place) / "unfinished")
            rows["ours"] = found.astype(np.float32)

    def before() -> None:
        rows["before"] = one_after_another(model, tokens)

    pairs = [(measure(ours), measure(before)) for _ in range(arguments.repeats + 1)][1:]
    linear = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear)
    )
    flop = 2 * linear * sum(map(len, tokens))
    results: Results = {"questions": len(questions), "prompts": len(prompts)}
    results["tokens"] = sum(map(len, tokens))
    for number, unit in enumerate(("s", "CPU s")):
        mine, theirs = zip(*((a[number], b[number]) for a, b in pairs), strict=True)
        results[f"ours, {unit}"] = median(mine)
        results[f"before, {unit}"] = median(theirs)
        ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
        results[f"before / ours, {unit}"] = median(ratios)
    results["floor of the linear layers, s"] = flop / matrix_peak()
    unit = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in rows.values()]
    results["largest difference at length 1"] = float(np.abs(unit[0] - unit[1]).max())
    publish("encoder", results, arguments.json)


def measure(action: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and seconds of all cores, in the kernel as well."""
    start = time.process_time()
    clock = seconds(action)
    return clock, time.process_time() - start


@torch.inference_mode()
def one_after_another(model: torch.nn.Module, tokens: list[list[int]]) -> Floats:
    """Return float32 [prompts, dim], the mean over the tokens of each prompt."""
    rows = np.empty((len(tokens), model.config.hidden_size), np.float32)
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    while order:
        longest = len(tokens[order[0]])
        size = max(1, BATCH_TOKENS["cpu"] // longest)
        batch, order = order[:size], order[size:]
        mask = torch.tensor(
            [[place < len(tokens[row]) for place in range(longest)] for row in batch]
        )
        ids = torch.zeros(mask.shape, dtype=torch.int64)
        ids[mask] = torch.tensor([token for row in batch for token in tokens[row]])
        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        rows[batch] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
    return rows


if __name__ == "__main__":
    main()
