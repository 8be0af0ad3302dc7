"""The tests. Whoever starts them, in whatever terminal and environment, they see the same."""

import os

# They change what the app, Flower, other libraries or the terminal do, so they are removed before
# any of these is imported.
PREFIXES = ("PLURALLLM_", "FLWR_", "RAY_", "WANDB_", "MLFLOW_", "HF_")
NAMES = (
    "GITHUB_ACTIONS",  # typer takes these three for a terminal with colours
    "FORCE_COLOR",
    "PY_COLORS",
    "NO_COLOR",
    "TERMINAL_WIDTH",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONOPTIMIZE",
    "HTTP_PROXY",  # requests to this machine would go there
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
    "PYTHONWARNINGS",
)

for name in list(os.environ):
    if name.startswith(PREFIXES) or name.upper() in NAMES:
        del os.environ[name]
os.environ["COLUMNS"] = "80"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait leave the CPUs to others
os.environ.setdefault("PATH", os.defpath)
