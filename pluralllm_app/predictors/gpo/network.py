"""The GPO preference predictor: its network and its likelihood.

The network is a small transformer. It sees some questions that a group has answered (the context)
and predicts the group's share of each option of other questions (the targets), without fine-tuning.
It is that of Group Preference Optimization (arXiv 2310.11523, section 3) as PluralLLM trains it
(arXiv 2503.09925): a row is (embedding of "question + option", share), the share of a target row is
given as 0, and every row attends to the context rows only.

Because no row attends to a target, keys and values are computed for the context rows alone and no
mask is needed. The result equals that of the masked form in the published code.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, pairwise
from typing import cast

import torch
from torch import Tensor, nn

from pluralllm_app.predictors.gpo.products import Linear, attention, linear
from pluralllm_app.predictors.gpo.rows import Batch


class EncoderLayer(nn.Module):
    """Post-norm transformer layer whose queries and keys come from different rows."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int) -> None:
        super().__init__()
        self.nhead = nhead
        # Only holds the parameters, under their usual names and with their usual first values.
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(
        self, rows: Tensor, context: Tensor, counts: list[int], context_counts: list[int]
    ) -> Tensor:
        """Let the rows of each task attend to its context; returns [..., N, d].

        Args:
            rows: [..., N, d], task after task.
            context: [..., C, d], task after task.
            counts: how many of `rows` each task has.
            context_counts: how many of `context` each task has.
        """
        d_model = rows.shape[-1]
        # A split, because its gradient is one concatenation; slices would add up zeros.
        sizes = [d_model, 2 * d_model]
        (query_weight, rest_weight), (query_bias, rest_bias) = (
            torch.split(parameter, sizes)
            for parameter in (self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        )
        queries = linear(rows, query_weight, query_bias)
        keys, values = linear(context, rest_weight, rest_bias).chunk(2, dim=-1)
        tasks = zip(
            torch.split(queries, counts, dim=-2),
            torch.split(keys, context_counts, dim=-2),
            torch.split(values, context_counts, dim=-2),
            strict=True,
        )
        attended = _join([attention(*task, self.nhead) for task in tasks])
        projected = linear(attended, self.self_attn.out_proj.weight, self.self_attn.out_proj.bias)
        rows = self.norm1(projected.add_(rows))
        rows = self.norm2(self.linear2(self.linear1(rows).relu_()).add_(rows))
        return rows


class GPO(nn.Module):
    """Predicts a group's option shares from its answers to other questions.

    The parameters have the names of the published code, so that its weights can be loaded.

    Args:
        dim_x: width of the option embeddings.
        dim_y: width of an answer; always 1 (a share), but published configurations name it.
        d_model: width of a row inside the transformer; a multiple of `nhead`.
        emb_depth: number of linear layers of the row MLP.
        dim_feedforward: hidden width of the feed-forward blocks and of the head.
        nhead: attention heads.
        num_layers: transformer layers.
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int = 1,
        d_model: int = 128,
        emb_depth: int = 4,
        dim_feedforward: int = 128,
        nhead: int = 4,
        num_layers: int = 6,
    ) -> None:
        super().__init__()
        if dim_y != 1:
            raise ValueError(f"an answer is one share per option: dim_y must be 1, not {dim_y}")
        self.dim_x = dim_x
        self.sizes = {
            "dim_x": dim_x,
            "dim_y": dim_y,
            "d_model": d_model,
            "emb_depth": emb_depth,
            "dim_feedforward": dim_feedforward,
            "nhead": nhead,
            "num_layers": num_layers,
        }
        widths = [dim_x + dim_y, *[d_model] * emb_depth]
        embedder: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            embedder += [Linear(width_in, width_out), nn.ReLU(inplace=True)]
        self.embedder = nn.Sequential(*embedder[:-1])
        layers = (EncoderLayer(d_model, nhead, dim_feedforward) for _ in range(num_layers))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.predictor = nn.Sequential(
            Linear(d_model, dim_feedforward), nn.ReLU(), Linear(dim_feedforward, 2 * dim_y)
        )

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """Embed rows: x [..., N, dim_x] and shares y [..., N] to [..., N, d_model]."""
        if x.shape[-1] != self.dim_x or x.shape[:-1] != y.shape:
            raise ValueError(
                f"rows of shape {tuple(x.shape)} and shares of shape {tuple(y.shape)} do not fit "
                f"a predictor with dim_x={self.dim_x}"
            )
        rows: Tensor = self.embedder(torch.cat([x, y.unsqueeze(-1)], dim=-1))
        return rows

    def attend(self, rows: Tensor, context: list[int], target: list[int]) -> tuple[Tensor, Tensor]:
        """Compute the raw outputs for the target rows of one task or of several.

        Only the attention is computed task by task, so that many small tasks cost about as much as
        one large task.

        Args:
            rows: embedded rows [..., N, d]: the context rows of the first task, its target rows,
                the context rows of the second task, and so on.
            context: how many context rows each task has.
            target: how many target rows each task has.

        Returns:
            mean [..., T], whose softmax over the options of a question gives their shares, and the
            standard deviation of each share, std [..., T].

        Raises:
            ValueError: a task has no context row or no target row.
        """
        if not all(context):
            raise ValueError("a prediction needs at least one context question")
        if not all(target):
            raise ValueError("there is no question to predict: give at least one target row")
        *layers, last = cast(nn.ModuleList, self.encoder["layers"])
        in_turn = list(chain.from_iterable(zip(context, target, strict=True)))
        both = [sum(counts) for counts in zip(context, target, strict=True)]
        for layer in layers:
            rows = layer(rows, _join(torch.split(rows, in_turn, dim=-2)[::2]), both, context)
        # Nothing reads the context rows after the last layer.
        parts = torch.split(rows, in_turn, dim=-2)
        rows = last(_join(parts[1::2]), _join(parts[::2]), target, context)
        outputs = self.predictor(rows)
        # Autocast gives bfloat16, too coarse for the shares and densities computed from these.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        mean, log_std = outputs.unbind(dim=-1)
        return mean, log_std.exp()

    def remember(self, context: Tensor) -> list[Tensor]:
        """What each layer reads of one task's embedded context rows [C, d], for `recall`."""
        *layers, _ = cast(nn.ModuleList, self.encoder["layers"])
        read = [context]
        for layer in layers:
            read.append(layer(read[-1], read[-1], [len(context)], [len(context)]))
        return read

    def recall(self, read: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the raw outputs of `attend` for embedded target rows [T, d] of one task."""
        for layer, context in zip(cast(nn.ModuleList, self.encoder["layers"]), read, strict=True):
            rows = layer(rows, context, [len(rows)], [len(context)])
        mean, log_std = self.predictor(rows).unbind(dim=-1)
        return mean, log_std.exp()

    def forward(
        self, rows: Tensor, context: list[int], target: list[int], options: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the shares of all target rows; training and prediction both go through here.

        Args:
            rows: embedded rows [N, d] of tasks, see `attend`.
            context: how many context rows each task has.
            target: how many target rows each task has.
            options: [Q] int64 option counts of the target questions, summing to T; on the CPU.

        Returns:
            shares [T], summing to 1 per question, and their standard deviation [T].
        """
        mean, std = self.attend(rows, context, target)
        return segment_softmax(mean, options), std


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate rows, without a copy where there is a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-2)


def get_weights(model: GPO) -> Tensor:
    """All parameters in one new vector [P], in the order of the state dict."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@torch.no_grad()
def set_weights(model: GPO, vector: Tensor) -> None:
    """Copy a vector [P] of `get_weights` into the parameters."""
    parameters = list(model.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    parts = torch.split(vector.to(parameters[0].device), sizes)  # one copy to the device, not many
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))


def flatten_weights(model: GPO, vector: Tensor) -> Tensor:
    """Make the parameters, and their gradients, views of `vector` [P] and of its new `grad`.

    A change of the vector is a change of the parameters, so that optimiser and clipping handle a
    single tensor. Returns the vector.
    """
    vector.grad = torch.zeros_like(vector)
    parameters = list(model.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, values, gradient in zip(
        parameters, torch.split(vector, sizes), torch.split(vector.grad, sizes), strict=True
    ):
        parameter.data = values.view_as(parameter)
        parameter.grad = gradient.view_as(parameter)
    return vector


def segment_softmax(values: Tensor, options: Tensor) -> Tensor:
    """Softmax within consecutive segments: values [T] in segments of lengths options [Q].

    Where `options` is on the CPU, nothing waits for the device of `values`.
    """
    options = options.cpu()
    inside = torch.arange(int(options.max())) < options[:, None]
    places = inside.flatten().nonzero().squeeze(-1).to(values.device, non_blocking=True)
    padded = values.new_full((inside.numel(),), -torch.inf).scatter(0, places, values)
    return padded.view(inside.shape).softmax(dim=-1).flatten().gather(0, places)


def log_likelihood(mean: Tensor, std: Tensor, shares: Tensor) -> Tensor:
    """Log density [T] of true shares [T] under Normal(predicted share [T], std [T]).

    This is the GPO likelihood; `mean` is already a softmax over each question's options.
    """
    return -((shares - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))


def in_precision(
    device: torch.device, precision: torch.dtype
) -> AbstractContextManager[torch.autocast | None]:
    """Within it the network's products have a precision."""
    rounded = precision == torch.bfloat16
    return torch.autocast(device.type, precision) if rounded else nullcontext()


def task_losses(
    model: GPO, batch: Batch, precision: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the loss of each task, [n], and the predicted shares of their target rows, [T].

    The loss of a task is the negative log-likelihood averaged over its target rows, in nats.

    Args:
        model: the network.
        batch: the rows of the tasks.
        precision: of the network's products; weights, gradients and results are always float32.
    """
    with in_precision(batch.x.device, precision):
        rows = model.embed(batch.x, batch.y)
        shares, std = model(rows, batch.context, batch.target, batch.options)
    densities = log_likelihood(shares, std, batch.shares)
    parts = torch.split(densities, batch.target)
    return -torch.stack([part.mean() for part in parts]), shares
