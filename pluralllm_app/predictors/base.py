"""What a predictor is; the author of this room replaces this line."""

from typing import Any

Predictor = Any
