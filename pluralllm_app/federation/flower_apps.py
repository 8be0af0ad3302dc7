"""The copies of an app that Flower unpacks and runs: of this machine's own app, and no other."""

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from pluralllm_app.core.code import code_hash
from pluralllm_app.federation.own_code import PYPROJECT

if TYPE_CHECKING:
    from flwr.supercore.fab import Fab


@dataclass(frozen=True)
class OwnApp:
    """The app that is installed on this machine, as a bundle of Flower."""

    bundle: "Fab"
    id: str
    version: str
    hash: str
    """Of its code."""

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> "OwnApp":
        """Bundle these files."""
        from flwr.cli.build import build_fab_from_files
        from flwr.common.config import get_fab_config, get_metadata_from_config
        from flwr.supercore.fab import Fab

        content, _ = build_fab_from_files(files)
        code = {name: file for name, file in files.items() if name != PYPROJECT}
        named = get_metadata_from_config(get_fab_config(content))
        return cls(Fab(hashlib.sha256(content).hexdigest(), content, {}), *named, code_hash(code))

    def install_alone(self) -> None:
        """Remove the copies that Flower runs this app from, and make a new one.

        Flower takes a copy that is there for whole and unchanged, whatever put it there, and begins
        to make one where there is none: of two runs that begin at once, one would read what the
        other has half unpacked.
        """
        from flwr.cli.install import install_from_fab
        from flwr.common.constant import APP_DIR
        from flwr.supercore.utils import get_flwr_home

        for copy in (get_flwr_home() / APP_DIR).glob(f"{self.id.replace('/', '.')}.*"):
            shutil.rmtree(copy)
        with redirect_stdout(StringIO()):  # where it is, is of no use to anybody
            install_from_fab(self.bundle.content, skip_prompt=True)
