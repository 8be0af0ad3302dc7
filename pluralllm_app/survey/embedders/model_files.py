"""The files of a transformers model: where they are, whether they are whole, and their digest.

Models reach a machine by git, by browser and by copying, and parts get lost on the way. What can be
known without loading the model is checked here, so that the message names the file.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError, safe_open

from pluralllm_app.errors import SurveyError
from pluralllm_app.survey.hub import reason

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.vocab", "tekken.json")
# Of a repository on the hub: no pickles, and neither the copies for other programs.
WANTED = [
    *("*.json", "*.txt", "*.jinja", "*.model", "*.vocab"),
    *("model*.safetensors", "*_*/model.safetensors"),
]
COMPLETE = ".gitattributes"  # of every repository: where it is missing, a copy is a part
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
AGAIN = "download the model again"
_OTHERS = {"embedder": "hashing, "}  # what may be named in place of a model, by role
_SCALES = ("_scale", "_scale_inv", ".scale", ".SCB")  # of weights in fewer bits


@dataclass(frozen=True)
class ModelFiles:
    """A directory in the layout of transformers or of sentence-transformers."""

    name: str  # what the user named
    root: Path
    local: bool  # whether the user named a directory
    role: str = "embedder"  # what it is for, for messages, and the option that names it

    @classmethod
    def find(cls, name: str, role: str = "embedder") -> "ModelFiles":
        """Return the directory called `name`, or that of the model's copy from the hub.

        Raises:
            SurveyError: there is neither, or the hub cannot be asked and no whole copy is here.
        """
        path = Path(name).expanduser()
        if path.is_dir():
            return cls(name, path, True, role)
        if path.is_file():
            raise SurveyError(f"{role} {name!r} is a file: name the directory that it is in")
        if name.startswith((os.sep, ".", "~")):
            raise SurveyError(f"{role} {name!r} is not a directory: check --{role}")
        return cls(name, _from_hub(name, role), False, role)

    def json(self, path: str) -> Any:
        """Return the content of the JSON file at `path`, or None if there is none.

        Raises:
            SurveyError: it is a pointer, or damaged.
        """
        if not os.path.lexists(self.root / path):
            return None
        content = self._read(path)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.fault(f"{path} is damaged ({error}): {AGAIN}") from error
        if found is None:
            raise self.fault(f"{path} is damaged (it holds null alone): {AGAIN}")
        return found

    def settings(self, path: str) -> dict[str, Any]:
        """Return the content of the JSON file at `path` that holds an object; {} if there is none.

        Raises:
            SurveyError: it is a pointer, or damaged.
        """
        content = self.json(path)
        if not isinstance(content, dict | None):
            raise self.fault(f"{path} is damaged (no JSON object): {AGAIN}")
        return content or {}

    def check_tokenizer(self, directory: str) -> list[str]:
        """Return the paths of the tokenizer's files in `directory`, having checked them.

        Raises:
            SurveyError: there is none, or one is a pointer, empty, or damaged JSON.
        """
        names = sorted(os.listdir(self.root / directory))  # broken links, too
        found = [name for pattern in TOKENIZERS for name in matching(names, pattern)]
        if not found:
            raise self.fault(
                "there is no tokenizer (tokenizer.json, or vocab.txt and the like): copy the "
                "model's tokenizer files into its directory"
            )
        if found == ["vocab.json"] and "merges.txt" not in names:
            raise self.fault(
                "its tokenizer has a vocab.json without merges.txt: copy the model's tokenizer "
                "files into its directory"
            )
        others = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
        found += [name for name in (*others, "merges.txt") if name in names]
        paths = [os.path.join(directory, name) for name in found]
        for path in paths:
            if not self._read(path).strip():
                raise self.fault(f"{path} is empty: {AGAIN}")
            if path.endswith(".json"):
                self.json(path)
        return paths

    def check_weights(self, directory: str) -> list[str]:
        """Return the paths of the weights in `directory`, having checked that they are whole.

        Raises:
            SurveyError: they are in another format than safetensors, or a file is missing, is a
                pointer, or is damaged.
        """
        weights, index = (os.path.join(directory, name) for name in (WEIGHTS, INDEX))
        if os.path.lexists(self.root / weights):
            self._tensors(weights)
            return [weights]
        if not os.path.lexists(self.root / index):
            place = self.root / directory
            others = [file.name for pattern in PICKLES for file in sorted(place.glob(pattern))]
            raise self.fault(
                f"there is no {weights}"
                + (f", only {others[0]}, which is not read: it could run code" if others else "")
                + ": choose a model with weights in safetensors format, or save it again so"
            )
        shards: dict[str, set[str]] = {}
        for tensor, name in self._weight_map(index).items():
            shards.setdefault(os.path.join(directory, str(name)), set()).add(tensor)
        for path, expected in sorted(shards.items()):
            if not os.path.lexists(self.root / path):
                raise self.fault(f"{path} is missing, one of {len(shards)} of its weights: {AGAIN}")
            if lacking := sorted(expected - self._tensors(path)):
                raise self.fault(f"{path} lacks {lacking[0]}, which {index} names: {AGAIN}")
        return [index, *sorted(shards)]

    def digest(self, paths: Iterable[str]) -> str:
        """Return "sha256:" and the hash of the files at `paths` and of their paths, in hex."""
        digest = hashlib.sha256()
        for path in sorted(set(paths)):
            with (self.root / path).open("rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{own}  {path}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    def fault(self, what: str) -> SurveyError:
        """Return an error that says what is wrong with this model."""
        return SurveyError(f"{self.role} {self.name!r}: {what}")

    def _weight_map(self, index: str) -> dict[str, Any]:
        found = self.settings(index).get("weight_map")
        if not isinstance(found, dict) or not found:
            raise self.fault(f"{index} is damaged (no weight_map): {AGAIN}")
        return found

    def _tensors(self, path: str) -> set[str]:
        """Return the names of the tensors in a whole safetensors file."""
        self._check_pointer(path, self._head(path))
        try:
            with safe_open(self.root / path, framework="numpy") as tensors:
                names = tensors.keys()
                kinds = {name: tensors.get_slice(name).get_dtype() for name in names}
        except (OSError, SafetensorError) as error:
            size = (self.root / path).stat().st_size
            raise self.fault(
                f"{path} is damaged or cut off at {size:,} bytes ({error}): {AGAIN}"
            ) from error
        scaled = any(name.endswith(_SCALES) for name in kinds)
        for name, kind in kinds.items():
            # Whole numbers are honest as positions, which are no parameters.
            whole = kind.startswith(("I", "U", "BOOL")) and name.endswith((".weight", ".bias"))
            if whole or (scaled and kind.startswith("F8")):
                raise self.fault(
                    f"{path} holds {name} as {kind}, which would be read without the scale that "
                    "belongs to it: choose the model with weights in float32, float16 or bfloat16"
                )
        return set(kinds)

    def _read(self, path: str) -> bytes:
        self._check_pointer(path, self._head(path))
        return (self.root / path).read_bytes()

    def _head(self, path: str) -> bytes:
        try:
            with (self.root / path).open("rb") as file:
                return file.read(200)
        except OSError as error:  # a broken link, or no right to read
            reason = error.strerror or str(error)
            raise self.fault(f"{path} cannot be read ({reason}): {AGAIN}") from error

    def _check_pointer(self, path: str, head: bytes) -> None:
        if re.match(rb"version https://\S*git-lfs|# xet version|version https://\S*/spec/v1", head):
            raise self.fault(
                f"{path} is a Git LFS pointer and not the file itself: run `git lfs pull` in the "
                f"model's directory, or {AGAIN}"
            )
        if re.match(rb"\s*<(!doctype|html)", head, re.IGNORECASE):
            raise self.fault(f"{path} is a web page that was saved in place of the file: {AGAIN}")


def _from_hub(name: str, role: str) -> Path:
    """Return the directory of a whole copy of the model, downloaded if necessary."""
    try:
        # One question first: the downloader asks again and again, with pages of messages.
        HfApi().model_info(name, timeout=10)
        return Path(snapshot_download(name, allow_patterns=[*WANTED, COMPLETE]))
    except Exception as error:  # those of the hub and of its HTTP client
        copy = _copy(name)
        if copy is None:
            raise SurveyError(
                f"the hub does not give {role} {name!r} ({reason(error)}): pass "
                f"{_OTHERS.get(role, '')}the name of a model on the hub, or the path of a local one"
            ) from error
        if not (copy / COMPLETE).exists():
            raise SurveyError(
                f"the hub does not give {role} {name!r} ({reason(error)}), and the copy in "
                f"{copy} is not whole: run `hf download {name}` with a network first"
            ) from error
        return copy


def _copy(name: str) -> Path | None:
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # whatever is wrong with it, there is no whole copy
        return None
