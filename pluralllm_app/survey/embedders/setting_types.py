"""The types of what a model's JSON files state, as far as it is read.

JSON holds the text "false" as well as false, and Python takes the text for true.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from pluralllm_app.survey.embedders.model_files import AGAIN, ModelFiles

_Flag = bool | None
SENTENCE: dict[str, Any] = {  # of the files of sentence-transformers
    "activation_function": str,
    "bias": _Flag,
    "default_prompt_name": str | None,
    "do_lower_case": _Flag,
    "in_features": int | None,
    "include_prompt": _Flag,
    "max_seq_length": int | None,
    "modality_config": dict[str, Any] | None,
    "model_type": str,
    "module_input_name": str,
    "out_features": int | None,
    "pooling_mode": str | list[str] | None,
    "prompts": dict[str, str | None] | None,
    "transformer_task": str,
    "truncate_dim": int | None,
    "use_residual": _Flag,
}
TOKENIZER: dict[str, Any] = {  # of tokenizer_config.json
    "add_bos_token": _Flag,
    "add_eos_token": _Flag,
    "add_prefix_space": _Flag,
    "clean_up_tokenization_spaces": _Flag,
    "do_lower_case": _Flag,
    "keep_accents": _Flag,
    "model_max_length": int | float | None,
    "strip_accents": _Flag,
    "tokenize_chinese_chars": _Flag,
    "tokenizer_class": str | None,
}


def typed_settings(files: ModelFiles, path: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in the JSON file at `path`, {} if there is none.

    Raises:
        SurveyError: the file is damaged, or states something of another type than it should.
    """
    settings = files.settings(path)
    for name, value in settings.items():
        kind = _Flag if name.startswith("pooling_mode_") else types.get(name)
        if kind is None:
            continue
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise files.fault(
                f"{path} states {name} {value!r}: {error}. Mend it, or {AGAIN}"
            ) from error
    return settings
