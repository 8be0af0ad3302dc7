"""Paths that the system cannot use, and disks without room, whatever command meets them."""

import codecs
import errno
import os
import re
import sys

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def at_home(argument: str) -> str:
    """Return a word of the command line with ~/ as a shell reads it.

    Shells leave it as it is after --out= and between quotation marks, and a directory called ~
    would be made.
    """
    home = os.path.expanduser("~/")
    return re.sub(r"\A((?:--[a-z-]+=)?)~/", lambda found: found[1] + home, argument)


def path_fault(error: Exception) -> str | None:
    """Return what is wrong with the path that an error is about; None if it is about another thing.

    Errors that a command expects, such as a missing directory, are explained where they arise.
    """
    if isinstance(error, UnicodeEncodeError):
        own = sys.getfilesystemencoding()
        if own == "utf-8" or codecs.lookup(error.encoding) != codecs.lookup(own):
            return None
        return (
            f"{error.object!r} cannot be a path in the encoding of this locale, {own}: set "
            "PYTHONUTF8=1 or LC_ALL=C.UTF-8"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error.filename!r} cannot be a path ({error.strerror}): give another one"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        place = f" {error.filename}" if error.filename else ""
        return f"cannot write{place}: {error.strerror}. Make room, then repeat the command"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of pathlib
        return f"a link leads in a circle ({error}): give another path"
    return None
