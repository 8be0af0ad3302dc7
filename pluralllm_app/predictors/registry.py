"""The kinds of predictor there are, and which of them are baselines."""

from importlib import import_module

from pluralllm_app.core.parts import need
from pluralllm_app.predictors.base import Baseline, ContextPredictor
from pluralllm_app.predictors.consensus import Consensus, WeightedConsensus
from pluralllm_app.predictors.low_rank import LowRank
from pluralllm_app.predictors.ridge import Ridge
from pluralllm_app.predictors.uniform import Uniform

# In the order of tables.
BASELINES: dict[str, type[Baseline]] = {
    baseline.kind: baseline for baseline in (Uniform, Consensus, WeightedConsensus, LowRank, Ridge)
}
# Module and class of the other kinds, which are imported when one is asked for: gpo needs torch.
_IMPORTED_LATER = {
    "gpo": ("pluralllm_app.predictors.gpo.predictor", "GPOPredictor"),
    "factors": ("pluralllm_app.predictors.factors.predictor", "FactorsPredictor"),
    "refined": ("pluralllm_app.predictors.refined.predictor", "RefinedPredictor"),
}
KINDS = (*_IMPORTED_LATER, *BASELINES)
_NETWORKS = ("gpo", "refined")


def predictor_class(kind: str) -> type[ContextPredictor]:
    """The class of a kind of KINDS.

    Raises:
        KeyError: there is no such kind.
        MissingPartError: it is a network, and torch is not installed.
    """
    if kind in BASELINES:
        return BASELINES[kind]
    if kind in _NETWORKS:
        need("gpo", f"a predictor of kind {kind!r}")
    module, name = _IMPORTED_LATER[kind]
    found: type[ContextPredictor] = getattr(import_module(module), name)
    return found
