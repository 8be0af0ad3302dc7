"""A language model made on the spot, which knows nothing but how to answer with a letter.

It stands in for a real one, so that the examples take minutes on two cores. What it learns from a
reward shows what the reward asks for, and nothing of how well a language model learns it.
"""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pluralllm_app import Question
from pluralllm_app.rewards import rendered
from pluralllm_app.use.prompts import labels

WARM_UP = 150  # steps, in which it learns to name an option, each as often as the others


def make_policy(
    questions: list[Question], seed: int, steps: int = WARM_UP
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A policy that answers these questions at random."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(questions)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    prompts = tokenizer([rendered(each) for each in questions], return_tensors="pt", padding=True)
    letters = [letter_tokens(tokenizer, each) for each in questions]
    for _ in range(steps):
        drawn = [tokens[torch.randint(len(tokens), ())] for tokens in letters]
        ends = [torch.tensor([letter, tokenizer.eos_token_id]) for letter in drawn]
        texts = torch.cat([prompts["input_ids"], torch.stack(ends)], dim=1)
        seen = torch.cat([prompts["attention_mask"], torch.ones(len(ends), 2, dtype=int)], dim=1)
        logits = model(texts, attention_mask=seen).logits[:, -3:-1]
        loss = cross_entropy(logits.flatten(0, 1), texts[:, -2:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, tokenizer


def letter_tokens(tokenizer: PreTrainedTokenizerFast, question: Question) -> list[int]:
    """The token of the letter of each option."""
    return [
        tokenizer.encode(f" {label}", add_special_tokens=False)[-1]
        for label in labels(len(question.options))
    ]


def answer_shares(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[Question]
) -> list[list[float]]:
    """How often the policy gives each option of each question, of the answers that are letters."""
    prompts = tokenizer([rendered(each) for each in questions], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**prompts.to(model.device)).logits[:, -1].double().cpu()
    return [
        logits[row, letter_tokens(tokenizer, question)].softmax(0).tolist()
        for row, question in enumerate(questions)
    ]


def _tokenizer(questions: list[Question]) -> PreTrainedTokenizerFast:
    split = pre_tokenizers.Whitespace()
    words = {
        word for question in questions for word, _ in split.pre_tokenize_str(rendered(question))
    }
    vocabulary = ["[PAD]", "[EOS]", "[UNK]", *sorted(words)]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(vocabulary)}, "[UNK]")
    )
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        padding_side="left",
    )
