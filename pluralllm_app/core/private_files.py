"""Files that must be their owner's alone."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pluralllm_app.errors import UserError

_OTHERS, _GROUP = 0o007, 0o070


def check_private(file: Path) -> None:
    """Refuse a secret file that others may read or write, as ssh does.

    Of a file of another owner, who lets this process read it by its group, the group may read.

    Raises:
        UserError: naming the file, its mode and what to do; or it is not there.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    mode = found.st_mode & 0o777
    if mode & _OTHERS or (mode & _GROUP and found.st_uid == os.getuid()):
        raise UserError(
            f"others than its owner may read {file} (mode {mode:04o}), which is secret: run "
            f"`chmod 600 {file}`; if somebody may have read it, make a new key"
        )


def check_private_arguments(arguments: Sequence[str], *options: str) -> None:
    """End this process with a line where others may read a file that an option names."""
    for option, value in pairwise(arguments):
        if option in options:
            try:
                check_private(Path(value))
            except UserError as error:
                print(f"Error: {error}", file=sys.stderr)
                sys.exit(1)
