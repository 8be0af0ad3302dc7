"""On a GPU: local steps, evaluating a group, rounds and the whole paper run, embedding.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --actors 8     # `pluralllm run` as well, 8 processes sharing the GPUs

Survey and language model are generated, of random numbers: 14 groups, 800 questions of 4 options.
Runs have the settings of conf/paper.toml. A time ends when the device has done all of its work.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from common_way import CommonGPO, evaluate
from embedding import save_model
from local_step import draw
from measuring import ROOT, Results, paired, paper_config, paper_settings, parse, publish, seconds
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from pluralllm_app import client_app
from pluralllm_app.engines.in_process import InProcessGrid
from pluralllm_app.federation.rounds import run_federation
from pluralllm_app.learning.local_steps import initial_model, run_steps
from pluralllm_app.learning.optimizers import make_optimizer
from pluralllm_app.predictors.gpo.network import flatten_weights, get_weights
from pluralllm_app.predictors.gpo.predictor import GPOPredictor
from pluralllm_app.predictors.gpo.rows import Batch
from pluralllm_app.scoring.evaluation import evaluate as evaluate_group
from pluralllm_app.scoring.evaluation import evaluation_draws
from pluralllm_app.settings import Settings
from pluralllm_app.survey.content import Answers, Questions
from pluralllm_app.survey.embedders.templates import TEMPLATES
from pluralllm_app.survey.embedders.transformer import TransformerEmbedder
from pluralllm_app.survey.prepared import PreparedSurvey, write_survey

OPTIONS = 4
STEPS = 6  # of a client in a round
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def settled(action: Callable[[], object], device: str) -> Callable[[], None]:
    """`action`, and then waiting until the device has done all of it."""

    def run() -> None:
        action()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def make_questions(count: int) -> Questions:
    """Questions of about twenty words, the same ones every time."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(500)]
    texts = [" ".join(rng.choice(words, 20)) for _ in range(count)]
    options = [[" ".join(rng.choice(words, 3)) for _ in range(OPTIONS)] for _ in range(count)]
    return Questions([f"q{i}" for i in range(count)], texts, options, [None] * count)


def make_survey(path: Path, questions: int, dim: int, groups: int) -> PreparedSurvey:
    """A survey of random answers and embeddings; four groups of seven train."""
    rng = np.random.default_rng(1)
    names = [f"Group {number:02}" for number in range(groups)]
    rows = questions * OPTIONS
    return write_survey(
        path,
        name="generated",
        metric="jensen-shannon",
        embedder="none",
        source="random numbers",
        licence="none",
        questions=make_questions(questions),
        embeddings=rng.normal(size=(rows, dim)).astype(np.float16),
        answers=Answers(
            groups=names,
            group=np.repeat(np.arange(groups), questions),
            question=np.tile(np.arange(questions), groups),
            shares=rng.dirichlet(np.ones(OPTIONS), size=groups * questions).ravel(),
        ),
        roles={
            name: "train" if number % 7 < 4 else "evaluation" for number, name in enumerate(names)
        },
    )


def local_steps(dim: int, precision: str, arguments: argparse.Namespace) -> Iterator[tuple]:
    """Milliseconds a step, of six in a row on a task of 50 + 50 questions."""
    device = arguments.device
    settings = paper_settings()
    (task,) = draw(dim, arguments.task_questions)
    ours = initial_model(dim, settings).to(device)
    common, batch = CommonGPO(ours), Batch.gather([task], torch.device(device))
    weights = flatten_weights(ours, get_weights(ours))
    optimizer = make_optimizer(weights, settings.training)
    common_optimizer = torch.optim.Adam(common.parameters(), lr=3e-4)
    dtype = PRECISIONS[precision]

    def our_steps() -> None:
        run_steps(ours, weights, optimizer, [[task]] * STEPS, [3e-4] * STEPS, precision=dtype)

    def common_steps() -> None:
        for _ in range(STEPS):
            common_optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = -common.densities(batch).mean()
            loss.backward()
            common_optimizer.step()

    mine, theirs, ratio = paired(
        settled(our_steps, device), settled(common_steps, device), arguments.repeats
    )
    name = f"local step, {dim} dimensions, {precision}"
    yield f"{name}: ours, ms", 1e3 * mine / STEPS
    yield f"{name}: common way, ms", 1e3 * theirs / STEPS
    yield f"{name}: common way / ours", ratio


def evaluation(survey: PreparedSurvey, arguments: argparse.Namespace) -> Iterator[tuple]:
    """Milliseconds a question of scoring one group on one context."""
    settings = paper_settings(**{"evaluation-draws": 1})
    model = initial_model(survey.dim, settings).to(arguments.device)
    common, predictor = CommonGPO(model), GPOPredictor(model)
    group = next(group for group in survey.groups if group.role == "evaluation")
    preferences = survey.preferences(group.name)
    sections = settings.split, settings.evaluation
    ((context, target),) = evaluation_draws(preferences, group.role, *sections)

    def ours() -> object:
        return evaluate_group(predictor, preferences, group.role, *sections, survey.metric)

    mine, theirs, ratio = paired(
        settled(ours, arguments.device),
        settled(lambda: evaluate(common, preferences, context), arguments.device),
        max(1, arguments.repeats // 4),
    )
    yield "evaluating a group: ours, ms a question", 1e3 * mine / len(target)
    yield "evaluating a group: common way, ms a question", 1e3 * theirs / len(target)
    yield "evaluating a group: common way / ours", ratio


def whole_run(
    survey: PreparedSurvey, precision: str, out: Path, arguments: argparse.Namespace
) -> Iterator[tuple]:
    """Seconds of the rounds of the paper's run, all clients in this process one after another."""
    config = paper_config() | {
        "survey": str(survey.path),
        "out": str(out),
        "device": arguments.device,
        "precision": precision,
        "rounds": arguments.rounds,
    }
    grid = InProcessGrid(client_app.app, config, len(survey.groups))
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = seconds(
        settled(
            lambda: run_federation(grid, Settings.from_config(config), config), arguments.device
        )
    )
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    plain = [entry["seconds"] for entry in rounds if not entry["evaluation"]]
    name = f"{arguments.rounds} rounds in one process, {survey.dim} dimensions, {precision}"
    yield f"{name}: s", whole
    if plain:
        yield f"{name}: s a round without evaluation", float(np.median(plain))
    if arguments.device == "cuda":
        yield f"{name}: peak MiB on the GPU", torch.cuda.max_memory_allocated() / 2**20


def simulation(survey: PreparedSurvey, out: Path, arguments: argparse.Namespace) -> Iterator[tuple]:
    """Seconds of `pluralllm run`, its client processes sharing the GPUs."""
    settings = f"device={arguments.device} rounds={arguments.rounds}"
    command = [str(Path(sys.executable).with_name("pluralllm")), "run"]
    command += ["--survey", str(survey.path), "--config", str(ROOT / "conf/paper.toml")]
    command += ["-c", settings, "--actors", str(arguments.actors), "--out", str(out)]
    whole = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    name = f"{arguments.rounds} rounds with {arguments.actors} processes, {survey.dim} dimensions"
    yield f"{name}: s", whole
    yield f"{name}: s in rounds", sum(entry["seconds"] for entry in rounds)


def embedding(directory: Path, arguments: argparse.Namespace) -> Iterator[tuple]:
    """Prompt tokens a second of a random model shaped like Llama."""
    questions = make_questions(arguments.prompts_of)
    prompts = list(
        chain.from_iterable(map(TEMPLATES["alpaca"], questions.texts, questions.options))
    )
    path = directory / "model"
    save_model(path, prompts, arguments.hidden, arguments.layers)
    embedder = TransformerEmbedder(str(path), "alpaca")

    def embed() -> object:
        return embedder.embed(questions, Console(quiet=True), directory / "unfinished")

    embed()
    fastest = min(seconds(embed) for _ in range(3))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    tokens = sum(map(len, tokenizer(prompts)["input_ids"]))
    yield f"embedding, {arguments.layers} layers of {arguments.hidden}: prompts", len(prompts)
    yield (
        f"embedding, {arguments.layers} layers of {arguments.hidden}: prompt tokens / s",
        tokens / fastest,
    )


def main() -> None:
    arguments = parse(
        __doc__,
        lambda parser: (
            parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda"),
            parser.add_argument("--dims", type=int, nargs="+", default=[384, 4096]),
            parser.add_argument("--task-questions", type=int, default=50),
            parser.add_argument("--repeats", type=int, default=20),
            parser.add_argument("--questions", type=int, default=800, help="of the survey"),
            parser.add_argument("--groups", type=int, default=14),
            parser.add_argument("--rounds", type=int, default=100),
            parser.add_argument("--actors", type=int, help="also run `pluralllm run` with so many"),
            parser.add_argument("--prompts-of", type=int, default=500, help="questions to embed"),
            parser.add_argument("--hidden", type=int, default=4096, help="of the language model"),
            parser.add_argument("--layers", type=int, default=8),
        ),
    )
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here: --device cpu runs everything on the CPU, see --help")
    logging.getLogger("flwr").setLevel(logging.WARNING)
    results: Results = {"device": arguments.device}
    for dim in arguments.dims:
        for precision in PRECISIONS:
            results |= local_steps(dim, precision, arguments)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        survey = make_survey(
            directory / "survey", arguments.questions, arguments.dims[-1], arguments.groups
        )
        results |= evaluation(survey, arguments)
        for precision in PRECISIONS:
            results |= whole_run(survey, precision, directory / precision, arguments)
        if arguments.actors:
            results |= simulation(survey, directory / "simulation", arguments)
        results |= embedding(directory, arguments)
    publish("gpu", results, arguments.json)


if __name__ == "__main__":
    main()
