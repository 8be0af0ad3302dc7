"""What the server is told of an error at a node."""

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from flwr.app import Context, Message

from pluralllm_app.errors import FederationError, UserError

Handler = Callable[[Message, Context], Message]


def without_content(handler: Handler) -> Handler:
    """Keep the text of unexpected exceptions on the node: it may hold something of the partition.

    The server learns the kind of exception and the line. `UserError`s are ours and hold no answers.
    """

    @wraps(handler)
    def guarded(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except UserError:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            raise FederationError(f"{type(error).__name__} in {where}") from None

    return guarded
