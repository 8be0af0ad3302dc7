"""What a node refuses to do, in a form that its audit log tells from errors."""

from pluralllm_app.errors import FederationError

REFUSED = "refused by the node: "


class NodeRefusal(FederationError):
    """A node does not do what a server asks, since its owner does not let it, or a key is odd.

    Args:
        why: in words that may reach the server.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{REFUSED}{why}")
