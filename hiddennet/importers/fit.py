"""Put another project's state dict into a network of ours, comparing every key; what all importers need."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from hiddennet import artifact
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.nn.expose import skip_init


def importer(reader: Callable[..., tuple[nn.Module, dict[str, Any]]]) -> tuple[Callable[..., nn.Module], ...]:
    """(read, convert) of a reader(path, arch=None, **options), which returns a network and its artifact's metadata."""

    @functools.wraps(reader)
    def read(path: str | os.PathLike, arch: str | None = None, **options: Any) -> nn.Module:
        return reader(path, arch, **options)[0]

    def convert(path: str | os.PathLike, arch: str | None, out: str | os.PathLike, **options: Any) -> nn.Module:
        """Write the checkpoint at `path` to `out` as an artifact; the other arguments and the result are read()'s."""
        model, metadata = reader(path, arch, **options)
        artifact.export(model, out, metadata=metadata)
        return model

    return read, convert


def state_dict(checkpoint: Any, path: str | os.PathLike, keys: Sequence[str]) -> dict[str, Tensor]:
    """The state dict under the first of `keys` that is there, else the checkpoint itself; without the
    prefixes that wrapped models leave on every key."""
    state = None
    if isinstance(checkpoint, Mapping):
        state = next((checkpoint[key] for key in keys if key in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not state:
        wanted = " or ".join(f"`{key}`" for key in keys)
        raise CheckpointError(f"import: expected a dict with {wanted} in {path}, got {type(checkpoint).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"import: expected only tensors in the state dict of {path}, got {type(value).__name__} for {key}"
            )
    for prefix in ("module.", "_orig_mod.") * 2:  # of parallel and of compiled models
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: _numbers(value, key, path) for key, value in state.items()}


_REAL = ("weight", "bias", "running_mean", "running_var")  # the others may be flags or counts


def _numbers(value: Tensor, key: str, path: str | os.PathLike) -> Tensor:
    """The tensor, if it is one of finite real numbers that the file holds: floats as float32."""
    value, got = value.detach(), ""
    if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
        kind = "quantised" if value.is_quantized else "nested" if value.is_nested else str(value.layout)
        got = f"a {kind} one on {value.device}"
    elif value.is_complex() or not (value.is_floating_point() or key.rpartition(".")[2] not in _REAL):
        got = f"one of {value.dtype}"
    elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
        got = f"{value.numel()} of them in {value.untyped_storage().nbytes()} bytes"
    elif value.is_floating_point() and not bool((value := value.float()).isfinite().all()):
        got = "NaN or infinity, which a broken training leaves"
    if got:
        raise CheckpointError(f"import: expected {key} of {path} to be a dense tensor of real numbers, got {got}")
    return value


def at_width(
    make: Callable[[float], nn.Module],
    state: Mapping[str, Tensor],
    name: str,
    channels: int,
    whole: int,
    theirs: Callable[[str], str] = lambda key: key,
) -> nn.Module:
    """make(width) for the width whose layers have the state's shapes; its tensors' memory is reserved, not filled.

    channels: of the first layer, int(whole * width). Tried are channels / whole and decimals of up to three places.
    """
    widths = [channels / whole]
    for scale in (10, 100, 1000):
        first, end = (math.ceil(n * scale / whole) for n in (channels, channels + 1))
        widths += [n / scale for n in range(first, end)]
    try:
        with torch.device("meta"):  # asks for no memory
            differences = {width: _difference(make(width), state, theirs) for width in widths}
    except (ValueError, RuntimeError) as error:
        refuse(name, "possible sizes", str(error).partition("\n")[0])
    if all(differences.values()):
        refuse(name, *differences[widths[0]])
    with skip_init():
        return make(next(width for width in widths if differences[width] is None))


def _difference(model: nn.Module, state: Mapping[str, Tensor], theirs: Callable[[str], str]) -> tuple[str, str] | None:
    """What the first weight of another shape should be, and what it is."""
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            key, shape = f"{theirs(layer_name)}.weight", tuple(layer.weight.shape)
            if key not in state:
                return f"{key} of shape {shape}", "none"
            found = tuple(state[key].shape)
            if found not in (shape, (*shape, 1, 1)):
                return f"{key} of shape {shape}", f"shape {found}"
    return None


def architecture(
    arch: str | None,
    checkpoint: Mapping[str, Any],
    path: str | os.PathLike,
    plain: Callable[[str], str | None],
    known: str,
) -> tuple[str, str]:
    """Which network it is, and its name in full: `arch`, or what the checkpoint says, which must agree.

    plain: the network that a name means, None for a name that means none; known: the names there are.
    """
    said = checkpoint.get("arch")
    full = said if arch is None else arch
    name = plain(full) if isinstance(full, str) else None
    if name is None:
        raise CheckpointError(f"import: expected arch to be one of {known}, got {full!r}")
    if isinstance(said, str) and plain(said) != name:
        raise CheckpointError(f"import: expected a checkpoint of {full} in {path}, got one that says {said}")
    return name, full


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    name: str,
    leaf: str,
    theirs: Callable[[str], str] = lambda key: key,
) -> dict[str, Tensor]:
    """Load all of `state` into the model, each key once; returns the tensors `<layer>.<leaf>` by layer.

    name: of the architecture, for messages. theirs: the state's name of a key or layer of ours.
    """
    left = dict(state)
    found: dict[str, Tensor] = {}
    for layer_name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        shape, their = tuple(layer.weight.shape), theirs(layer_name)
        layer.weight.data = take(left, f"{their}.weight", shape, name)
        if f"{their}.{leaf}" in left:
            found[layer_name] = take(left, f"{their}.{leaf}", shape, name)
        if f"{their}.bias" in left:  # ours gets one where it has none
            layer.bias = nn.Parameter(take(left, f"{their}.bias", shape[:1], name))
        elif layer.bias is not None:
            refuse(name, f"{their}.bias of shape {shape[:1]}", "none")
    for key, tensor in model.state_dict().items():
        owner = model.get_submodule(key.rpartition(".")[0])
        if isinstance(owner, nn.Conv2d | nn.Linear):
            continue
        their = theirs(key)
        if key.endswith("num_batches_tracked") and their not in left:
            continue  # older versions of torch did not keep it
        tensor.copy_(take(left, their, tuple(tensor.shape), name))
    if left:
        key, tensor = next(iter(left.items()))
        refuse(name, f"no {key}", f"one of shape {tuple(tensor.shape)}")
    return found


def need(state: Mapping[str, Tensor], name: str, *keys: str) -> None:
    """Refuse a state without weights of these names, of two dimensions or more."""
    for key in keys:
        if key not in state or state[key].dim() < 2:
            refuse(name, f"a weight {key}", "none")


def take(left: dict[str, Tensor], key: str, shape: tuple[int, ...], name: str) -> Tensor:
    """Remove and return the tensor `key`, its 1x1 kernel dropped where ours is a linear layer."""
    tensor = left.pop(key, None)
    if tensor is None:
        refuse(name, f"{key} of shape {shape}", "none")
    found = tuple(tensor.shape)
    if found != shape and found != (*shape, 1, 1):
        refuse(name, f"{key} of shape {shape}", f"shape {found}")
    return tensor.reshape(shape).contiguous()


def refuse(name: str, wanted: str, got: str) -> NoReturn:
    """Say in one sentence what of architecture `name` the checkpoint lacks, or has too much."""
    raise CheckpointError(f"import: expected a checkpoint of {name} with {wanted}, got {got}; check the architecture")


def is_mask(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def facts(
    system: str, path: str | os.PathLike, name: str, checkpoint: Mapping[str, Any], keys: Sequence[str]
) -> dict[str, Any]:
    """What is known about the checkpoint, for the artifact's header: the numbers under `keys` that it has."""
    found: dict[str, Any] = {"from": system, "file": os.path.basename(path), "arch": name}
    for key in keys:
        value = checkpoint.get(key)
        if isinstance(value, Tensor) and value.numel() == 1 and value.layout is torch.strided and not value.is_meta:
            value = value.item()
        if isinstance(value, int | float):
            found[key] = value
    return found
