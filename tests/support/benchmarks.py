"""Benchmarks as modules, and what they write."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == ROOT / "benchmarks":
            del sys.modules[name]


def run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """What a benchmark of that name writes as its results."""
    file = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", [name, *options, "--threads", "1", "--json", str(file)])
    importlib.import_module(name).main()
    return json.loads(file.read_text())["results"]
