"""What the benchmarks share: pairs timed in turn, and results as a table and as JSON."""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pluralllm_app.learning.device import prepare_processor
from pluralllm_app.records.machine import hardware, versions
from pluralllm_app.records.schema import to_plain
from pluralllm_app.settings import Scalar, Settings
from pluralllm_app.settings_files import flatten, read_defaults, read_toml

ROOT = Path(__file__).resolve().parent.parent
Results = dict[str, Any]


def parse(doc: str, add: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    """Options of a benchmark; --threads and --json are those of all."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add(parser)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    prepare_processor(arguments.threads)
    return arguments


def paper_config() -> dict[str, Scalar]:
    """The run config of conf/paper.toml."""
    return read_defaults(ROOT / "pyproject.toml") | flatten(read_toml(ROOT / "conf/paper.toml"))


def paper_settings(**overrides: Scalar) -> Settings:
    """Settings of conf/paper.toml."""
    return Settings.from_config(paper_config() | overrides)


def seconds(action: Callable[[], object]) -> float:
    """How long `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def paired(
    ours: Callable[[], object], common: Callable[[], object], repeats: int
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of their ratios common / ours.

    They are timed in turn, so that both meet the same state of the machine; the first turn, which
    warms up, does not count.
    """
    pairs = [(seconds(ours), seconds(common)) for _ in range(repeats + 1)][1:]
    mine, theirs = zip(*pairs, strict=True)
    return median(mine), median(theirs), median(b / a for a, b in pairs)


def count_flop(action: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products of `action`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the products of one thread are numpy's, which nobody counts
    # The counter knows no fused attention of a CPU; of the plain one it sees the products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        action()
    torch.set_num_threads(threads)
    return counter.get_total_flops()


def matrix_peak() -> float:
    """FLOP a second of a 512 x 512 matrix product, the best of 20 of torch's and of numpy's."""
    a, b = torch.randn(2, 512, 512)
    x, y = a.numpy(), b.numpy()
    products = chain.from_iterable(repeat((lambda: a @ b, lambda: x @ y), 20))
    return 2 * 512**3 / min(map(seconds, products))


def copy_speed() -> float:
    """Bytes a second that copying 256 MiB reads, the best of 5."""
    block = np.ones(2**28, np.uint8)
    return block.nbytes / min(seconds(block.copy) for _ in range(5))


def publish(name: str, results: Results, file: Path | None) -> None:
    """Print results as a table, and write them with hardware and versions where asked to."""
    width = max(map(len, results))
    for key, value in results.items():
        print(
            f"{key:<{width}}  {value:.4g}"
            if isinstance(value, float)
            else f"{key:<{width}}  {value}"
        )
    if file:
        content = {
            "benchmark": name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "threads": torch.get_num_threads(),
            "results": results,
            "versions": versions(),
            "hardware": to_plain(hardware()),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n")
