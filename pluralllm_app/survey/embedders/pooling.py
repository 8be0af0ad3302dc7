"""From the hidden states of a text's tokens to one vector, as sentence-transformers pools them."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pluralllm_app.survey.embedders.model_files import AGAIN, ModelFiles
from pluralllm_app.survey.embedders.sentence import Dense, SentenceConfig


def pool(states: Tensor, poolings: Sequence[str], skipped: int = 0) -> Tensor:
    """Return [len(poolings) * dim], the poolings of the states [tokens, dim] one after another.

    The first `skipped` tokens, those of a prompt, are left out. They count only where tokens are
    weighted by their place.

    >>> pool(torch.tensor([[1.0], [2.0], [6.0]]), ["mean", "max", "weightedmean"])
    tensor([3.0000, 6.0000, 3.8333])
    """
    kept = states[skipped:]
    found = []
    for name in poolings:
        if name == "cls":
            found.append(kept[0])
        elif name == "lasttoken":
            found.append(kept[-1])
        elif name == "max":
            found.append(kept.amax(0))
        elif name == "mean":
            found.append(kept.mean(0))
        elif name == "mean_sqrt_len_tokens":
            found.append(kept.sum(0) / len(kept) ** 0.5)
        else:
            places = torch.arange(skipped + 1, len(states) + 1, device=states.device)
            found.append((places[:, None] * kept).sum(0) / places.sum())
    return torch.cat(found)


class Head:
    """The layers after the pooling; without any, vectors stay as they are."""

    width: int  # of the vectors

    def __init__(self, files: ModelFiles, config: SentenceConfig, hidden: int) -> None:
        """Load the weights of the dense layers after hidden states of width `hidden`.

        Raises:
            SurveyError: a layer's weights are not those of one linear layer of the width before it.
        """
        self.width = hidden * len(config.poolings)
        self._layers: list[Callable[[Tensor], Tensor]] = []
        for layer in config.layers:
            if layer is None:
                self._layers.append(_normalize)
                continue
            weight, bias = _linear(files, layer)
            if weight.shape[1] != self.width:
                raise files.fault(
                    f"{layer.weights} takes vectors of {weight.shape[1]:,} numbers, and those "
                    f"before it have {self.width:,}: {AGAIN}"
                )
            self.width = len(weight)
            activation = getattr(nn, layer.activation)()
            self._layers.append(partial(_dense, weight, bias, activation))

        self.width = min(self.width, config.most_numbers or self.width)

    def __call__(self, rows: Tensor) -> Tensor:
        """Map float32 [rows, pooled dim] to [rows, dim]."""
        for layer in self._layers:
            rows = layer(rows)
        return rows[:, : self.width]


def _normalize(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)


def _dense(
    weight: Tensor, bias: Tensor | None, activation: Callable[[Tensor], Tensor], rows: Tensor
) -> Tensor:
    return activation(F.linear(rows, weight, bias))


def _linear(files: ModelFiles, dense: Dense) -> tuple[Tensor, Tensor | None]:
    """Return the float32 weight [out, in] and the bias [out] of a layer, if it has one."""
    tensors = {
        name: tensor.float() for name, tensor in load_file(files.root / dense.weights).items()
    }
    weight, bias = tensors.pop("linear.weight", None), tensors.pop("linear.bias", None)
    if weight is None or weight.ndim != 2 or tensors:
        raise files.fault(f"{dense.weights} does not hold one linear layer: choose another model")
    for stated, size in zip(dense.sizes, weight.shape, strict=True):
        if stated not in (None, size):
            raise files.fault(
                f"{dense.weights} holds a layer with a side of {size:,}, and its config.json "
                f"states {stated:,}: the two belong to different models, or {AGAIN}"
            )
    return weight, bias
