"""The optional parts of an installation, and what is said where one is missing.

`pip install pluralllm-app` is enough to load latent factors and to predict. All else is an extra of
pyproject.toml, named after what it is for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pluralllm_app.errors import MissingPartError

# The modules of each extra, best known first, since messages name three. For `explained`, a module
# that several have belongs to the first.
PARTS: dict[str, tuple[str, ...]] = {
    "gpo": ("torch",),
    "embed": ("torch", "transformers", "threadpoolctl"),
    "survey": ("pandas", "pyarrow", "charset_normalizer"),
    "microdata": ("pyreadstat", "openpyxl", "pandas", "pyarrow", "charset_normalizer"),
    "federation": (
        *("flwr", "ray", "torch", "pyarrow", "pandas", "charset_normalizer"),
        *("cryptography", "httpx", "starlette", "psutil", "threadpoolctl", "tomli_w"),
    ),
    "hub": ("pandas", "pyarrow", "charset_normalizer", "datasets"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "privacy": ("opendp",),
    "serve": ("starlette", "uvicorn"),
    "judge": ("httpx", "pandas", "pyarrow", "charset_normalizer"),
    "rlhf": ("trl", "datasets", "torch", "transformers", "threadpoolctl"),
    "report": ("pandas", "pyarrow", "charset_normalizer", "altair", "vl_convert", "jinja2"),
}


def installation(part: str) -> str:
    """The command that adds a part to an installation of this package, also to one in place."""
    return f"pip install 'pluralllm-app[{part}]'"


def missing(part: str) -> list[str]:
    """The modules of a part that are not installed; none is imported."""
    return [module for module in PARTS[part] if find_spec(module) is None]


def need(part: str, what: str) -> None:
    """Refuse what cannot be done without a part.

    Args:
        part: an extra of pyproject.toml.
        what: who needs it, as the subject of a sentence.

    Raises:
        MissingPartError: something of it is not installed.
    """
    if lacking := missing(part):
        raise MissingPartError(part, _sentence(part, what, lacking))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Let the block name the part that it lacks, instead of one module of it.

    Args:
        what: as in `need`.

    Raises:
        MissingPartError: a module of a part is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        for part, modules in PARTS.items():
            if module in modules:
                said = _sentence(part, what, [module])
                raise MissingPartError(part, said) from error
        raise


def _sentence(part: str, what: str, modules: list[str]) -> str:
    named = modules[:3] + [f"{len(modules) - 3} more"] * (len(modules) > 3)
    *most, last = named
    names = f"{', '.join(most)} and {last}, which are" if most else f"{last}, which is"
    return f"{what} needs {names} not installed here: {installation(part)}"
