"""What `import pluralllm_app` gives, and that it gives it without delay."""

import subprocess
import sys

import pytest

import pluralllm_app


@pytest.mark.parametrize("name", pluralllm_app.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pluralllm_app, name) is getattr(pluralllm_app, name)
    assert name in dir(pluralllm_app)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_predicter'"):
        _ = pluralllm_app.load_predicter  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import pluralllm_app; "
    program += "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"numpy", "pyarrow", "torch", "safetensors"} & set(told.stdout.split()), told
    assert "pluralllm_app" in told.stdout.split()
