"""Export a model's hidden network to a file, and load it into a model made anew or given.

The artifact keeps what evaluation needs: for each hidden layer the recipe of its weights and one
bit a weight, and everything else of the state dict as it is. A sampled layer evaluated by
expectation keeps its scores (4 bytes a weight), since its effective weight is
weight * sigmoid(score); one evaluated by a fixed draw keeps that draw as a mask.
"""

import math
import os
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hiddennet import container as file
from hiddennet import models
from hiddennet._version import __version__
from hiddennet.artifact.architecture import check_architecture
from hiddennet.artifact.layers import Restored, Streams, decode, decode_wiring, encode, encode_wiring
from hiddennet.container import ArtifactError
from hiddennet.nn import Wiring, hidden_layers, hide, masks, wirings
from hiddennet.nn.attention import close_attention, open_attention
from hiddennet.nn.expose import expose, skip_init
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import all_or_nothing

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_STATE = "state."  # prefix of the tensors that are not of hidden layers
Grapher = Callable[[nn.Module, list[dict[str, Any]], dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]


def export(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    metadata: dict[str, Any] | None = None,
    graph: Grapher | None = None,
) -> None:
    """As hiddennet.export, which says what is taken and raised.

    Args:
        graph: of the model, the entries of its layers and its state, makes how the network computes, a part of the
            header, and tensors beside it. hiddennet.export has the one for hiddennet.runtime.
    """
    from hiddennet import compaction

    model = unwrapped(model)
    if isinstance(model, compaction.CompactNetwork):
        compaction.save(model, path, metadata, *(() if graph is None else graph(model, [], {})))
        return
    if isinstance(model, (HiddenMixin, Wiring)):
        raise TypeError(
            f"artifact: expected a model that holds layers, got a single {type(model).__name__}; "
            "put it into an nn.Sequential"
        )
    facts = dict(metadata or {})
    streams = Streams()
    revealed = masks(model)
    layers = [encode(name, layer, revealed[name], streams) for name, layer in hidden_layers(model).items()]
    layers += [encode_wiring(name, wiring, revealed[name], streams) for name, wiring in wirings(model).items()]
    state = state_of(model)
    computed, beside = (None, {}) if graph is None else graph(model, layers, state)
    weights = sum(math.prod(layer["shape"]) for layer in layers)
    header = {
        "format_version": 3 if computed is not None else 2 if any("code" in layer for layer in layers) else 1,
        "model": facts.pop("model", getattr(model, "architecture", None)),
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "method": facts.pop("method", None),
        "config_hash": facts.pop("config_hash", None),
        "versions": {"hiddennet": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "hidden_weights": weights,
        "dense_bytes": 4 * weights + sum(t.numel() * t.element_size() for t in state.values()),
        "layers": layers,
        "metadata": facts,
        **({} if computed is None else {"graph": computed}),
    }
    tensors = {**streams.tensors(), **{_STATE + key: tensor for key, tensor in state.items()}}
    _check_header(header, tensors, path)
    file.write(path, header, {**tensors, **beside})


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of torch: compiled, DataParallel, DistributedDataParallel, AveragedModel.

    Raises TypeError for one whose parameters lie in pieces (FSDP, DTensor).
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, _WRAPPERS):
            inner = model.module
        if inner is None:
            break
        model = inner
    if any(type(part).__name__ in ("DTensor", "FlatParameter") for part in model.parameters()):
        raise TypeError(
            "artifact: expected whole parameters, got a model that FSDP keeps in pieces; gather its full state dict "
            "into a plain copy first"
        )
    return model


def load(path: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """Return the network at `path`, in evaluation mode, with fixed masks.

    Args:
        path: an artifact. Nothing in it is unpickled.
        model: to load into, in place: plain or hidden, with the layers' names and shapes of the
            artifact. None builds hiddennet's own models by name, on the CPU.

    Raises:
        ArtifactError (a ValueError): the file is missing, damaged, of a newer format or of another
            architecture. The given model is changed only when everything fits.
    """
    header, tensors = read(path)
    if header.get("kind") == "compact":
        return _compact(path, header, tensors, model)
    try:
        streams = Streams.of(tensors)
        layers, graphs = {}, {}  # in the header's order, which is the streams'
        for entry in header["layers"]:
            if entry["kind"] == "wiring":
                graphs[entry["name"]] = decode_wiring(entry, streams)
            else:
                layers[entry["name"]] = decode(entry, streams)
        streams.check_end()
        state = {key.removeprefix(_STATE): tensor for key, tensor in tensors.items()}
        if model is None:
            model = _build(header, state)
        open_attention(model, layers.keys())
        check_architecture(model, header["layers"], state)
        with all_or_nothing(model.modules()):
            _reveal(model, layers)
            for name, (mask, weight) in graphs.items():
                model.get_submodule(name).fix(mask, weight)
            model.load_state_dict(state, strict=False)  # complete: check_architecture compared every key
    except ArtifactError:
        if model is not None:
            close_attention(model)
        raise
    except Exception as error:  # what a header can say wrongly is answered with many types
        reason = str(error).strip().partition("\n")[0]
        raise ArtifactError(
            f"artifact: expected a complete header in {path}, got one that cannot be used "
            f"({type(error).__name__}: {reason}); export it again"
        ) from None
    return model.eval()


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file, the header checked key by key."""
    header, tensors = file.read(path)
    _check_header(header, tensors, path)
    return header, tensors


def _check_header(header: dict[str, Any], tensors: dict[str, Tensor], path: str | os.PathLike) -> None:
    from hiddennet.header import check  # pydantic, which `import hiddennet` does without

    check(header, tensors, path)


def _compact(
    path: str | os.PathLike, header: dict[str, Any], tensors: dict[str, Tensor], model: nn.Module | None
) -> nn.Module:
    from hiddennet import compaction

    if model is not None:
        raise ArtifactError(
            f"artifact: expected no model to load {path} into, since it holds a compact network, got a "
            f"{type(model).__name__}; call load(path)"
        )
    return compaction.restore(path, header, tensors)


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header of the artifact at `path` (layers, method, versions), checked as by load()."""
    return read(path)[0]


def sizes(path: str | os.PathLike) -> dict[str, float]:
    """What the artifact takes beside the same network's dense float32 checkpoint.

    Returns:
        artifact_bytes, dense_bytes (weights and the rest of the state), ratio = dense / artifact,
        hidden_weights, bits_per_weight = all of the artifact's bits over the hidden weights.
    """
    header, size = read_header(path), os.path.getsize(path)
    weights = header["hidden_weights"]
    return {
        "artifact_bytes": size,
        "dense_bytes": header["dense_bytes"],
        "ratio": header["dense_bytes"] / size,
        "hidden_weights": weights,
        "bits_per_weight": 8 * size / weights if weights else float("nan"),
    }


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without what the streams hold of hidden layers."""
    state = {}
    for key, value in model.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        module = model.get_submodule(owner)
        if isinstance(module, (HiddenMixin, Wiring)) and leaf not in getattr(module, "plain_names", ()):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"artifact: expected tensors in the model's state dict, got {type(value).__name__} for {key}"
            )
        state[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return state


def _build(header: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """The model the header describes, its memory reserved and not filled."""
    arguments = header["model"]
    if arguments is None:
        raise ArtifactError(
            f"artifact: expected one of hiddennet's own models to build, got {header['class']}; "
            "make the model and call load(path, model)"
        )
    try:
        with torch.device("meta"):  # asks for no memory; compared before one that does is made
            check_architecture(_with_biases(models.build(**arguments), state), header["layers"], state)
        with skip_init():
            return _with_biases(models.build(**arguments), state)
    except ArtifactError:
        raise
    except ValueError as error:
        raise ArtifactError(
            f"artifact: the model cannot be built: {error}; one of a plugin needs it loaded first (--plugins)"
        ) from None


def _with_biases(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The model with the biases that the state has besides its own: it was imported from where it had some."""
    for name, module in model.named_modules():
        bias = state.get(f"{name}.bias")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None and bias is not None:
            module.bias = nn.Parameter(torch.empty_like(bias, device=module.weight.device))
    return model


def _reveal(model: nn.Module, layers: dict[str, Restored]) -> None:
    """Make the named layers hidden, each of its restored source and rule."""
    expose(model)
    if not layers:
        return
    with skip_init():
        hide(
            model,
            source=lambda name, _: layers[name].source,
            rule=lambda name, _: layers[name].rule,
            include=lambda name, _: name in layers,
            score_init=0.0,
        )
    for name, layer in hidden_layers(model).items():
        if layers[name].scores is not None:
            layer.scores.data.copy_(layers[name].scores)
