"""Which parameters a network has, known before one is made."""


def parameter_shapes(
    arrays: int,
    dim_x: int,
    dim_y: int = 1,
    d_model: int = 128,
    emb_depth: int = 4,
    dim_feedforward: int = 128,
    nhead: int = 4,
    num_layers: int = 6,
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the parameters of a `GPO` of these sizes, without making one.

    Args:
        arrays: how many there are; sizes may come from anybody, and a network of a million layers
            takes minutes to make.

    Raises:
        ValueError: a size is no whole number above 0, or there are more layers than `arrays`.
    """
    sizes = {
        "dim_x": dim_x,
        "dim_y": dim_y,
        "d_model": d_model,
        "emb_depth": emb_depth,
        "dim_feedforward": dim_feedforward,
        "nhead": nhead,
        "num_layers": num_layers,
    }
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size < 2**31:
            raise ValueError(f"{name} = {size!r} is no whole number above 0")
    for name in ("num_layers", "emb_depth"):
        if sizes[name] > arrays:
            raise ValueError(f"there are {arrays} arrays for {name} = {sizes[name]}")

    if dim_y != 1:
        raise ValueError(f"an answer is one share per option: dim_y must be 1, not {dim_y}")

    def linear(name: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}

    shapes = linear("embedder.0", dim_x + dim_y, d_model)
    for at in range(1, emb_depth):
        shapes |= linear(f"embedder.{2 * at}", d_model, d_model)
    for at in range(num_layers):
        layer = f"encoder.layers.{at}"
        shapes |= {
            f"{layer}.self_attn.in_proj_weight": (3 * d_model, d_model),
            f"{layer}.self_attn.in_proj_bias": (3 * d_model,),
            **linear(f"{layer}.self_attn.out_proj", d_model, d_model),
            **linear(f"{layer}.linear1", d_model, dim_feedforward),
            **linear(f"{layer}.linear2", dim_feedforward, d_model),
        }
        for norm in ("norm1", "norm2"):
            shapes |= {f"{layer}.{norm}.{part}": (d_model,) for part in ("weight", "bias")}
    return (
        shapes
        | linear("predictor.0", d_model, dim_feedforward)
        | linear("predictor.2", dim_feedforward, 2 * dim_y)
    )
