"""The GPO preference predictor: network, likelihood, save and load.

A small transformer that sees some answered questions of a group (context) and predicts the
group's share of each option of other questions (targets), without fine-tuning. The network is
that of Group Preference Optimization (arXiv 2310.11523, section 3) as PluralLLM trains it
(arXiv 2503.09925): a row is (embedding of "question + option", share), targets carry share 0, and
every row attends to the context rows only.

Since nothing attends to a target, keys and values are computed for context rows alone and no mask
is needed; this equals the masked form of the published code.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from pluralllm_app.preferences import Task


class EncoderLayer(nn.Module):
    """Post-norm transformer layer whose queries and keys come from different rows."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int) -> None:
        super().__init__()
        self.nhead = nhead
        # MultiheadAttention holds and initialises the parameters under their usual names only.
        self.self_attn = nn.MultiheadAttention(d_model, nhead, batch_first=True)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, rows: Tensor, context: Tensor) -> Tensor:
        """Let `rows` [..., N, d] attend to `context` [..., C, d]; returns [..., N, d]."""
        d_model = rows.shape[-1]
        # Split, not sliced: the gradient of a split is one concatenation.
        sizes = [d_model, 2 * d_model]
        (query_weight, rest_weight), (query_bias, rest_bias) = (
            torch.split(parameter, sizes)
            for parameter in (self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        )
        queries = F.linear(rows, query_weight, query_bias)
        keys, values = F.linear(context, rest_weight, rest_bias).chunk(2, dim=-1)
        # [groups, heads, N or C, d / heads]: only with exactly one leading dimension does the
        # fused attention kernel apply.
        q, k, v = (
            part.reshape(-1, part.shape[-2], self.nhead, d_model // self.nhead).transpose(1, 2)
            for part in (queries, keys, values)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows.shape)
        rows = self.norm1(self.self_attn.out_proj(attended).add_(rows))
        rows = self.norm2(self.linear2(self.linear1(rows).relu_()).add_(rows))
        return rows


class GPO(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pluralllm_app",
    tags=["pluralllm", "group-preference-optimization", "preference-prediction"],
):
    """Predicts a group's option shares from context questions.

    The parameter names are those of the published code, so that its weights load strictly.
    ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` use config.json and
    model.safetensors.

    Args:
        dim_x: width of the option embeddings.
        dim_y: width of an answer; 1 (a share), kept so that published configurations load.
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
        widths = [dim_x + dim_y, *[d_model] * emb_depth]
        embedder: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            embedder += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
        self.embedder = nn.Sequential(*embedder[:-1])
        layers = (EncoderLayer(d_model, nhead, dim_feedforward) for _ in range(num_layers))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.predictor = nn.Sequential(
            nn.Linear(d_model, dim_feedforward), nn.ReLU(), nn.Linear(dim_feedforward, 2 * dim_y)
        )

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """Embed rows: x [..., N, dim_x] and shares y [..., N] to [..., N, d_model]."""
        if x.shape[-1] != self.dim_x or x.shape[:-1] != y.shape:
            raise ValueError(
                f"rows of shape {tuple(x.shape)} and shares of shape {tuple(y.shape)} do not fit "
                f"a predictor with dim_x={self.dim_x}"
            )
        rows: Tensor = self.embedder(torch.cat([x, y.unsqueeze(-1)], dim=-1))
        return rows

    def attend(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Predict from embedded rows [..., C + T, d], of which the first `count` = C are context.

        Returns (mean [..., T], std [..., T]), see `forward`.
        """
        if count == 0:
            raise ValueError("a prediction needs at least one context question")
        *layers, last = cast(nn.ModuleList, self.encoder["layers"])
        for layer in layers:
            rows = layer(rows, rows[..., :count, :])
        # Nothing reads the context rows after the last layer.
        rows = last(rows[..., count:, :], rows[..., :count, :])
        # float32 also under autocast: shares and their density are computed from these.
        mean, log_std = self.predictor(rows).float().unbind(dim=-1)
        return mean, log_std.exp()

    def forward(
        self, context_x: Tensor, context_y: Tensor, target_x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict all targets in one pass.

        Args:
            context_x: [..., C, dim_x] embeddings of the context options.
            context_y: [..., C] their shares.
            target_x: [..., T, dim_x] embeddings of the target options.

        Returns:
            mean [..., T] (a softmax over each question's options gives the shares) and
            std [..., T], both raw outputs of the head with std = exp(second output).

        Raises:
            ValueError: shapes that do not fit, or no context row.
        """
        if context_x.shape[-1] != target_x.shape[-1]:
            raise ValueError(
                f"context has {context_x.shape[-1]} dimensions, targets {target_x.shape[-1]}"
            )
        target_y = target_x.new_zeros(target_x.shape[:-1])
        x = torch.cat([context_x, target_x], dim=-2)
        y = torch.cat([context_y, target_y], dim=-1)
        return self.attend(self.embed(x, y), context_x.shape[-2])

    @torch.inference_mode()
    def predict(
        self, context_x: Tensor, context_y: Tensor, target_x: Tensor, target_options: Tensor
    ) -> Tensor:
        """Return the predicted share of each target option, [T]; sums to 1 per question.

        Args:
            context_x: [C, dim_x]; context_y: [C]; target_x: [T, dim_x].
            target_options: [Q] int64 option count of each target question, summing to T.

        Raises:
            ValueError: shapes or option counts that do not fit.
        """
        if int(target_options.sum()) != len(target_x):
            raise ValueError(
                f"target_options sum to {int(target_options.sum())} but there are {len(target_x)} "
                "target rows"
            )
        mean, _ = self(context_x, context_y, target_x)
        return segment_softmax(mean, target_options)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str | Path, *_: Any) -> NoReturn:
        # The mixin falls back to pickled weights when a repository has no model.safetensors.
        raise ValueError(f"{model_file} is a pickle; only model.safetensors is loaded")


def get_weights(model: GPO) -> Tensor:
    """All parameters in one new vector [P], in the order of the state dict."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@torch.no_grad()
def set_weights(model: GPO, vector: Tensor) -> None:
    """Copy a vector [P] of `get_weights` into the parameters."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    for parameter, part in zip(model.parameters(), torch.split(vector, sizes), strict=True):
        parameter.copy_(part.view_as(parameter))


def flatten_weights(model: GPO, vector: Tensor) -> Tensor:
    """Make the parameters, and their gradients, views of `vector` [P] and of its new `grad`.

    What changes the vector changes the parameters, so that an optimiser, clipping and sending
    handle one tensor. Returns the vector.
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
    """Softmax within consecutive segments: values [T] in segments of lengths options [Q]."""
    inside = torch.arange(int(options.max()), device=options.device) < options[:, None]
    padded = values.new_full(inside.shape, -torch.inf).masked_scatter(inside, values)
    return padded.softmax(dim=-1)[inside]


def log_likelihood(mean: Tensor, std: Tensor, shares: Tensor) -> Tensor:
    """Log density [T] of true shares [T] under Normal(predicted share [T], std [T]).

    This is the GPO likelihood; `mean` is already a softmax over each question's options.
    """
    return -((shares - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))


def task_loss(
    model: GPO, task: Task, precision: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return (loss, predicted shares [T]) of one task.

    The loss is the negative log-likelihood averaged over target rows, in nats. `precision` is that
    of the network's products; weights, gradients and both results are float32 in any case.
    """
    with torch.autocast(
        task.target_x.device.type, torch.bfloat16, enabled=precision == torch.bfloat16
    ):
        mean, std = model(task.context_x, task.context_y, task.target_x)
    predicted = segment_softmax(mean, task.target_options)
    return -log_likelihood(predicted, std, task.target_y).mean(), predicted
