"""PluralLLM on Flower: federated training of a group preference predictor.

The method is that of arXiv 2503.09925; README.md says how to use it. What `__all__` lists is the
public interface; all else may change from one version to the next. Each name is imported when it is
first used, so that importing the package takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluralllm_app.predictors.base import ContextPredictor, Prediction
    from pluralllm_app.predictors.saved import load_predictor, save_predictor
    from pluralllm_app.preferences import PreferenceSet, QuestionSet, Task
    from pluralllm_app.settings import Settings
    from pluralllm_app.survey.prepared import PreparedSurvey
    from pluralllm_app.use.predictor import Predictor
    from pluralllm_app.use.questions import Question

__version__ = "0.2.0"
__all__ = [
    "ContextPredictor",
    "Prediction",
    "Predictor",
    "PreferenceSet",
    "PreparedSurvey",
    "Question",
    "QuestionSet",
    "Settings",
    "Task",
    "__version__",
    "load_predictor",
    "save_predictor",
]

_MODULES = {
    "ContextPredictor": "predictors.base",
    "Prediction": "predictors.base",
    "Predictor": "use.predictor",
    "PreferenceSet": "preferences",
    "PreparedSurvey": "survey.prepared",
    "Question": "use.questions",
    "QuestionSet": "preferences",
    "Settings": "settings",
    "Task": "preferences",
    "load_predictor": "predictors.saved",
    "save_predictor": "predictors.saved",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pluralllm_app.core.parts import explained

    with explained(name):
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
