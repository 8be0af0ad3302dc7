"""Embedding with a causal language model, ours against the common way of writing it, in one run.

The common way: prompts in the order of the file, four at a time, padded, a full pass each. The
model is shaped like Llama with random weights; the tokenizer is trained on the texts themselves.

    python benchmarks/embedding.py --file global_opinions.csv --threads 2
"""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from measuring import paired, parse, publish
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from pluralllm_app.core.segments import Halves
from pluralllm_app.survey.content import Questions
from pluralllm_app.survey.embedders.prefix_tree import PrefixTree, batches, common_beginning
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.transformer import BATCH_TOKENS, TransformerEmbedder
from pluralllm_app.survey.prepared import PreparedSurvey
from pluralllm_app.survey.sources.registry import read_source


def read_questions(file: Path, count: int) -> Questions:
    """Return `count` questions of a prepared survey or of a GlobalOpinionQA file, the same ones."""
    if file.is_dir():
        questions = PreparedSurvey.open(file).questions()
    else:
        questions = read_source("globalopinionqa", file, 0).questions
    drawn = np.random.default_rng(0).permutation(len(questions))[:count]
    return questions.select(np.sort(drawn))


def save_model(path: Path, prompts: Sequence[str], hidden: int, layers: int) -> None:
    """Write a random Llama and a byte-pair tokenizer of its kind: <s> first, no padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $0", None, [("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        intermediate_size=8 * hidden // 3,
    )
    LlamaModel(config).save_pretrained(path)


@torch.inference_mode()
def common_way(path: Path, prompts: Sequence[str]) -> torch.Tensor:
    """Return float16 [prompts, dim]; loading is the caller's for ours, and cheap here."""
    model = LlamaModel.from_pretrained(path).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, pad_token="<s>")
    rows = []
    for start in range(0, len(prompts), 4):
        inputs = tokenizer(list(prompts[start : start + 4]), padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        rows.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(rows).half()


def count_tokens(tokens: Sequence[Sequence[int]], counts: Sequence[int]) -> dict[str, int]:
    """Return how many tokens each way runs through the model, padding included, and bounds."""
    ends = np.cumsum(counts)
    common = len(common_beginning(tokens))
    trees = [
        PrefixTree.of([prompt[common:] for prompt in tokens[end - count : end]])
        for end, count in zip(ends, counts, strict=True)
    ]
    fours = [tokens[start : start + 4] for start in range(0, len(tokens), 4)]
    return {
        "common": sum(len(four) * max(map(len, four)) for four in fours),
        "prompts without padding": sum(map(len, tokens)),
        "ours": common
        + sum(
            len(batch) * max(len(trees[index].tokens) for index in batch)
            for batch in batches(trees, BATCH_TOKENS["cpu"])
        ),
        "ours without padding": common + sum(len(tree.tokens) for tree in trees),
        "one tree of all prompts": len(PrefixTree.of(tokens).tokens),
    }


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--file", type=Path, required=True, help="survey, or the csv"),
            parser.add_argument("--questions", type=int, default=100),
            parser.add_argument("--hidden", type=int, default=256),
            parser.add_argument("--layers", type=int, default=4),
            parser.add_argument("--repeats", type=int, default=3),
        ),
    )
    questions = read_questions(arguments.file, arguments.questions)
    prompts = list(
        chain.from_iterable(map(TEMPLATES["alpaca"], questions.texts, questions.options))
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model")
        save_model(path, prompts, arguments.hidden, arguments.layers)
        embedder = TransformerEmbedder(str(path), "alpaca")

        def ours() -> Halves:
            return embedder.embed(questions, Console(quiet=True), path / "unfinished")

        def common() -> torch.Tensor:
            return common_way(path, prompts)

        difference = float(np.abs(ours().astype(np.float32) - common().float().numpy()).max())
        mine, theirs, ratio = paired(ours, common, arguments.repeats)
        tokens = PreTrainedTokenizerFast.from_pretrained(path)(prompts)["input_ids"]
    counts = count_tokens(tokens, questions.counts.tolist())
    publish(
        "embedding",
        {
            "questions": len(questions),
            "prompts": len(prompts),
            "layers": arguments.layers,
            "hidden": arguments.hidden,
            "ours, s": mine,
            "common way, s": theirs,
            "common way / ours": ratio,
            "largest difference": difference,
            "prompt tokens / s of ours": counts["prompts without padding"] / mine,
            **{f"tokens run, {name}": count for name, count in counts.items()},
            "transformers": version("transformers"),
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
