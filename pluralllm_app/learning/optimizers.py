"""Adam, AdamW and SGD on one vector of weights.

torch.optim would do the same, but creating one of its optimisers imports torch's compiler. That
would happen in every client process, and a deployment has a process for every message.
"""

from typing import Protocol

import torch
from torch import Tensor

from pluralllm_app.core.segments import Floats
from pluralllm_app.settings import TrainingSettings

OptimizerState = dict[str, Floats]

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


class Optimizer(Protocol):
    """Moves a vector of weights [P] along its gradient, in place."""

    def step(self, learning_rate: float) -> None:
        """Take one step with the gradient in `weights.grad`."""

    def state(self) -> OptimizerState:
        """What the next step depends on besides the weights, for `load`; {} where nothing is."""

    def load(self, state: OptimizerState) -> None:
        """Continue from a `state`; raises KeyError or RuntimeError for one of another optimiser."""


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1), with weight decay as part of the gradient.

    With `decoupled` weight decay it is AdamW (arXiv 1711.05101, algorithm 2).
    """

    def __init__(self, weights: Tensor, weight_decay: float, *, decoupled: bool) -> None:
        self._weights, self._decay = weights, weight_decay
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)
        self._steps = torch.zeros(1, device=weights.device)
        # torch.optim calls these with fused=True: they pass over the weights once, not seven times.
        self._fused = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def step(self, learning_rate: float) -> None:
        """Take one step with the gradient in `weights.grad`."""
        assert self._weights.grad is not None
        self._steps += 1
        self._fused(
            [self._weights],
            [self._weights.grad],
            [self._first],
            [self._second],
            [],
            [self._steps],
            lr=learning_rate,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            weight_decay=self._decay,
            eps=ADAM_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> OptimizerState:
        """Both moments [P] and the number of steps taken, [1]."""
        return {
            "first": self._first.cpu().numpy(),
            "second": self._second.cpu().numpy(),
            "steps": self._steps.cpu().numpy(),
        }

    def load(self, state: OptimizerState) -> None:
        """Continue from a `state`."""
        self._first.copy_(torch.from_numpy(state["first"]))
        self._second.copy_(torch.from_numpy(state["second"]))
        self._steps.copy_(torch.from_numpy(state["steps"]))


class SGD:
    """Gradient descent with heavy-ball momentum: b <- momentum b + g, w <- w - rate b."""

    def __init__(self, weights: Tensor, weight_decay: float, momentum: float) -> None:
        self._weights, self._decay, self._momentum = weights, weight_decay, momentum
        self._velocity = torch.zeros_like(weights)

    def step(self, learning_rate: float) -> None:
        """Take one step with the gradient in `weights.grad`."""
        assert self._weights.grad is not None
        self._velocity.mul_(self._momentum).add_(self._weights.grad)
        if self._decay:
            self._velocity.add_(self._weights, alpha=self._decay)
        self._weights.add_(self._velocity, alpha=-learning_rate)

    def state(self) -> OptimizerState:
        """The velocity [P]."""
        return {"velocity": self._velocity.cpu().numpy()}

    def load(self, state: OptimizerState) -> None:
        """Continue from a `state`."""
        self._velocity.copy_(torch.from_numpy(state["velocity"]))


def make_optimizer(weights: Tensor, settings: TrainingSettings) -> Optimizer:
    """The optimiser `settings` ask for, over the vector [P] of all weights."""
    if settings.optimizer == "sgd":
        return SGD(weights, settings.weight_decay, settings.momentum)
    return Adam(weights, settings.weight_decay, decoupled=settings.optimizer == "adamw")
