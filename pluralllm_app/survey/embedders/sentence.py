"""What a model says of itself in the files of sentence-transformers.

`modules.json` names a transformer, a pooling, and layers after it, each with a config.json of its
own; `config_sentence_transformers.json` names prompts. A model without `modules.json` is a plain
transformers model, whose hidden states are averaged. What is not supported is refused by name:
vectors that are made in another way than the model was trained for would be wrong in silence.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pluralllm_app.survey.embedders.model_files import AGAIN, WEIGHTS, ModelFiles
from pluralllm_app.survey.embedders.setting_types import SENTENCE, typed_settings

# Names of poolings in the order in which sentence-transformers joins several, with the names that
# older versions give them.
POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
GENERAL = "config_sentence_transformers.json"
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
_HIDDEN_STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
_TRANSFORMER_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


class _Module(msgspec.Struct):
    """An entry of modules.json, as far as it is read."""

    type: str
    path: str


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation, applied to the pooled vector."""

    weights: str  # path of its safetensors file, from the model's root
    activation: str  # one of ACTIVATIONS, a class of torch.nn
    sizes: tuple[int | None, int | None] = (None, None)  # out and in, as far as they are stated


@dataclass(frozen=True)
class SentenceConfig:
    """How a text becomes a vector."""

    transformer: str = ""  # directory of config.json, weights and tokenizer, from the model's root
    poolings: tuple[str, ...] = ("mean",)  # of POOLINGS, joined in this order
    pools_prompt: bool = True  # whether the tokens of the prompt are pooled, too
    layers: tuple[Dense | None, ...] = ()  # after the pooling; None scales to length 1
    most_numbers: int | None = None  # of a vector, whose rest is left out
    prompt: str = ""  # what every text begins with
    other_prompts: tuple[str, ...] = ()  # names of prompts where none is the default
    most_tokens: int | None = None  # with the prompt
    lower_case: bool = False
    stated: bool = False  # whether the model has a modules.json
    files: tuple[str, ...] = field(default=(), compare=False)  # paths of all that was read

    def summary(self) -> str:
        """Return one line for people."""
        parts = [" and ".join(self.poolings) + " pooling"]
        parts += ["the prompt left out"] if self.prompt and not self.pools_prompt else []
        for layer in self.layers:
            parts.append(
                "scaled to length 1" if layer is None else f"a dense layer ({layer.activation})"
            )
        parts += [f"every text after the prompt {self.prompt!r}"] if self.prompt else []
        parts += ["lower case"] if self.lower_case else []
        if not self.stated:
            parts.append("the default for a model that states none")
        if self.other_prompts:
            names = ", ".join(self.other_prompts)
            parts.append(f"without its prompts ({names}), none of which is its default")
        return ", ".join(parts)


def read_sentence_config(files: ModelFiles) -> SentenceConfig:
    """Read the configuration of the model in `files`.

    Raises:
        SurveyError: it is damaged, needs code of its own, or states what is not supported here.
    """
    modules = files.json("modules.json")
    if modules is None:
        _refuse_classifiers(files)
        return SentenceConfig()
    read = ["modules.json"]
    kinds, places = _modules(files, modules or [])
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise files.fault(
            f"modules.json begins with {' and '.join(kinds[:2]) or 'nothing'}: choose a model that "
            "begins with Transformer and Pooling"
        )
    if again := {"Transformer", "Pooling"} & set(kinds[2:]):
        raise files.fault(f"modules.json names {again.pop()} twice: choose another model")
    settings, own = _transformer_settings(files, places[0])
    poolings, pools_prompt = _pooling(files, os.path.join(places[1], "config.json"))
    layers = tuple(
        _dense(files, place) if kind == "Dense" else None
        for kind, place in zip(kinds[2:], places[2:], strict=True)
        if kind != "Dropout"  # which does nothing but in training
    )
    general = _general(files)
    prompt, others = _prompts(files, general)
    read += [*own, os.path.join(places[1], "config.json"), GENERAL]
    for kind, place in zip(kinds, places, strict=True):
        read += [os.path.join(place, name) for name in ("config.json", WEIGHTS) if kind == "Dense"]
    return SentenceConfig(
        transformer=places[0],
        poolings=poolings,
        pools_prompt=pools_prompt,
        layers=layers,
        prompt=prompt,
        other_prompts=others,
        most_numbers=_count(files, GENERAL, general, "truncate_dim"),
        most_tokens=_count(files, "".join(own), settings, "max_seq_length"),
        lower_case=settings.get("do_lower_case") is True,
        stated=True,
        files=tuple(path for path in read if (files.root / path).exists()),
    )


def _refuse_classifiers(files: ModelFiles) -> None:
    kinds = files.settings("config.json").get("architectures")
    for kind in map(str, kinds if isinstance(kinds, list) else ()):
        if kind.endswith(_CLASSIFIERS):
            raise files.fault(
                f"config.json calls it {kind}, a classifier or reranker, whose hidden states were "
                "not made to say what a text means: choose a sentence embedder"
            )


def _modules(files: ModelFiles, modules: Any) -> tuple[list[str], list[str]]:
    """Return the kind and the directory of each module."""
    try:
        read = msgspec.convert(modules, list[_Module])
    except msgspec.ValidationError as error:
        raise files.fault(f"modules.json is damaged ({error}): {AGAIN}") from error
    types = [module.type for module in read]
    listed = [os.path.normpath(module.path) for module in read]
    for type_ in types:
        package, _, kind = type_.rpartition(".")
        if package.split(".")[0] != "sentence_transformers":
            raise files.fault(
                f"modules.json names {type_}, code of the model's own, which is not run: choose "
                "another model"
            )
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout"):
            raise files.fault(f"its module {kind} is not supported: choose another model")
    if any(place.split(os.sep)[0] in ("..", "") for place in listed):
        raise files.fault("modules.json leads out of the model's directory: choose another model")
    return [type_.rpartition(".")[2] for type_ in types], [
        "" if place == "." else place for place in listed
    ]


def _transformer_settings(files: ModelFiles, place: str) -> tuple[dict[str, Any], list[str]]:
    for name in _TRANSFORMER_SETTINGS:
        path = os.path.join(place, name)
        if settings := typed_settings(files, path, SENTENCE):
            break
    else:
        return {}, []
    task = settings.get("transformer_task", "feature-extraction")
    kinds = settings.get("modality_config") or {"text": _HIDDEN_STATES}
    if task != "feature-extraction" or kinds.get("text") != _HIDDEN_STATES:
        raise files.fault(
            f"{path} states another use than the hidden states of texts: choose another model"
        )
    return settings, [path]


def _count(files: ModelFiles, path: str, settings: dict[str, Any], name: str) -> int | None:
    count = settings.get(name)
    if count is not None and count < 1:
        raise files.fault(f"{path} states {name} {count!r}, which is no positive number")
    return count


def _pooling(files: ModelFiles, path: str) -> tuple[tuple[str, ...], bool]:
    """Return the poolings and whether they include the prompt."""
    settings = typed_settings(files, path, SENTENCE)
    if not settings:
        raise files.fault(f"{path} is missing, which states the pooling: download the model again")
    stated = settings.get("pooling_mode")
    names = {older: name for name, older in POOLINGS.items()}
    if stated is None:
        on = [key for key in settings if key.startswith("pooling_mode_") and settings[key]]
        found = sorted((names.get(key, key) for key in on), key=[*POOLINGS, *on].index)
        if not on and settings.get(POOLINGS["mean"]) is not False:
            found = ["mean"]
    else:
        found = [stated] if isinstance(stated, str) else stated
    if not found:
        raise files.fault(f"{path} states no pooling at all: mend it, or {AGAIN}")
    if unknown := [name for name in found if name not in POOLINGS]:
        raise files.fault(
            f"{path} states the pooling {unknown[0]!r}, known are {', '.join(POOLINGS)}: choose "
            "another model"
        )
    return tuple(found), settings.get("include_prompt") is not False


def _dense(files: ModelFiles, place: str) -> Dense:
    path = os.path.join(place, "config.json")
    settings = typed_settings(files, path, SENTENCE)
    if not settings:
        raise files.fault(f"{path} is missing, which states the layer: download the model again")
    package, _, activation = str(settings.get("activation_function", "Tanh")).rpartition(".")
    if (package and package.split(".")[0] != "torch") or activation not in ACTIVATIONS:
        raise files.fault(
            f"{path} states the activation {settings['activation_function']!r}, known are those of "
            f"torch called {', '.join(ACTIVATIONS)}: choose another model"
        )
    source = settings.get("module_input_name", "sentence_embedding")
    if source != "sentence_embedding" or settings.get("use_residual"):
        raise files.fault(
            f"{path} states a layer for {source}"
            + (" with a residual" if settings.get("use_residual") else "")
            + ", which is not supported: choose another model"
        )
    sizes = (settings.get("out_features"), settings.get("in_features"))
    return Dense(files.check_weights(place)[0], activation, sizes)


def _general(files: ModelFiles) -> dict[str, Any]:
    settings = typed_settings(files, GENERAL, SENTENCE)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise files.fault(f"it is a {kind}, which gives no vectors for texts: choose another model")
    return settings


def _prompts(files: ModelFiles, settings: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the default prompt, and the names of the others if there is no default."""
    prompts = settings.get("prompts") or {}
    default = settings.get("default_prompt_name")
    if default is None:
        return "", tuple(name for name, text in prompts.items() if text)
    if prompts.get(default) is None:
        raise files.fault(f"{GENERAL} names the prompt {default!r} and has no such prompt")
    return prompts[default], ()
