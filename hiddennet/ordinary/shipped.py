"""The artifact as users write it: by itself, or with how the network computes, for hiddennet.runtime."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hiddennet import artifact


def export(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    metadata: dict[str, Any] | None = None,
    runtime: bool = False,
    example: Tensor | None = None,
) -> None:
    """Write the model's hidden network to `path`, atomically.

    Args:
        model: any model with hidden layers; a model without any is written densely, in float32; a compact network
            (hiddennet.compact) with its edges in lists.
        path: of the file to write; an old one is replaced only when the new one is complete.
        metadata: JSON-able facts kept in the header. `method` and `config_hash` have their places
            there; `model`, the arguments of hiddennet.models.build, is taken from the model where
            that function made it, and lets load() build the model by itself.
        runtime: also write how the network computes, for hiddennet.runtime, which runs the file without torch.
        example: of an input, batch first, for that; None: of the images that the network says it takes.

    Raises:
        TypeError: a single layer instead of a model; a wiring that is not in float32; state that is no
            tensor, metadata that is no JSON, an example that is no tensor. ArtifactError (a ValueError): method or
            config_hash that is no text. ValueError: an operation that the runtime does not have, by its name; no
            example where one is needed; metadata with an infinity or a NaN.
    """
    artifact.export(model, path, metadata=metadata, graph=partial(_graph, example=example) if runtime else None)


def export_run(where: str, path: str) -> Path:
    """Write the network of a run's best epoch, of RUN@STAGE or of an artifact to `path`, for hiddennet.runtime."""
    from hiddennet.train.evaluate import facts_of  # which export() does without
    from hiddennet.train.opened import open_run

    opened, file = open_run(where, "export"), Path(where).expanduser()
    if opened is not None:
        facts, model = facts_of(opened), opened.model
    elif file.is_file():
        header, model = artifact.read_header(file), artifact.load(file)
        facts = {**header["metadata"], **{key: header[key] for key in ("model", "method", "config_hash")}}
    else:
        raise FileNotFoundError(f"export: expected an artifact or the folder of a run, got {where}")
    target = Path(path).expanduser()
    export(model, target, metadata=facts, runtime=True)
    return target


def _graph(
    model: nn.Module, layers: list[dict[str, Any]], state: dict[str, Tensor], example: Tensor | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from hiddennet.compaction.base import CompactNetwork
    from hiddennet.ordinary.runtime_graph import compact_graph, runtime_graph  # torch.export: seconds to import

    return (
        compact_graph(model, example)
        if isinstance(model, CompactNetwork)
        else runtime_graph(model, layers, state, example)
    )
