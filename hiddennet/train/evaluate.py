"""Evaluate or export what was found: an artifact, or a run's best epoch. Trains nothing."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiddennet import artifact, compaction, data
from hiddennet.config import Config, digest
from hiddennet.nn import density, hides
from hiddennet.tables import named
from hiddennet.train import machine
from hiddennet.train.build import data_options
from hiddennet.train.engine import begin_pass
from hiddennet.train.opened import OpenedRun, open_run
from hiddennet.train.scores import Meter, Scores
from hiddennet.train.text_scores import TextScores


def metadata(config: Config, model: nn.Module, accuracy: float | None, contents: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact of the run says of itself beside its layers.

    accuracy: top-1 on the test images, in [0, 1]. contents: of its data, of which the labels' meaning is kept.
    """
    return {
        "model": model.architecture,
        "method": config.method.name,
        "config_hash": digest(config),
        "data": config.data.name,
        "data_options": data_options(config),
        "accuracy": accuracy,
        "selection": config.train.selection,
        **{key: contents[key] for key in ("classes", "vocabulary") if contents.get(key)},
    }


def export(run: str, path: str | None = None, *, compact: bool = False) -> Path:
    """Write the artifact of a run's best epoch, or of RUN@STAGE, to `path` (default: into its folder).

    compact: without dead nodes, for evaluation alone; of the networks that hiddennet.compact takes.
    """
    opened = open_run(run, "export")
    if opened is None:
        raise FileNotFoundError(f"export: expected the folder of a run, got {run}")
    if opened.stage and path is None:
        raise ValueError(f"export: expected a file to write the end of a stage to, got none; give -o FILE with {run}")
    folder, model = opened.folder, _compact(opened.model) if compact else opened.model
    target = Path(path).expanduser() if path is not None else (folder.compact if compact else folder.artifact)
    artifact.export(model, target, metadata=facts_of(opened))
    return target


def _compact(model: nn.Module) -> nn.Module:
    try:
        return compaction.compact(model)
    except TypeError as error:  # the run's network, not a mistake of the caller's
        raise ValueError(f"export: {error}; leave out --compact") from None


def facts_of(opened: OpenedRun) -> dict[str, Any]:
    record = opened.record
    accuracy = None if opened.stage else record.get("test_top1")
    return metadata(opened.config, opened.model, accuracy, record.get("contents", {}))


def evaluate(
    where: str,
    *,
    data_name: str | None = None,
    root: str | None = None,
    split: str = "test",
    batch_size: int = 256,
    device: str = "auto",
    download: bool = False,
) -> dict[str, Any]:
    """Return scores, density and bytes of an artifact, of a run's best epoch, or of RUN@STAGE.

    data_name: default: what the network was trained on. root: the folder of the data sets;
    default: the run's, or `data`. split: train, validation or test.

    Raises ValueError or FileNotFoundError, saying what was expected.
    """
    on, path, opened = machine.choose_device(device), Path(where).expanduser(), open_run(where, "eval")
    if opened is not None:
        model, root = opened.model, root or opened.config.data.root
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "artifact.safetensors"
            artifact.export(model, file, metadata=facts_of(opened))
            header, sizes = artifact.read_header(file), artifact.sizes(file)
    elif path.is_file():
        model, header, sizes = artifact.load(path), artifact.read_header(path), artifact.sizes(path)
    else:
        raise FileNotFoundError(f"eval: expected an artifact or the folder of a run, got {where}")
    facts = header["metadata"]
    name = data_name or facts.get("data")
    if name is None:
        raise ValueError(f"eval: expected the name of a data set in {where}, got none; give --data")
    options = facts.get("data_options") or {}
    if name != facts.get("data"):  # other images: all of them, in the size the network knows
        options = {
            "image_size": (header["model"] or {}).get("image_size"),
            "normalization": options.get("normalization", "own"),
        }
    try:
        images = data.build(
            name,
            root=root or "data",
            batch_size=batch_size,
            device=on,
            augment=False,
            download=download,
            **{"seed": 0, **options, "classes": facts.get("classes")},
        )
    except TypeError as error:  # options of the file's that are none
        raise ValueError(f"eval: expected options of a data set in {where}, got {options!r:.80} ({error})") from None
    loader = getattr(images, split)
    if loader is None:
        raise ValueError(f"eval: expected a split of {name} with images, got {split!r}")
    _check_fits(header["model"] or {}, facts, images)
    return {
        "network": where,
        "method": header.get("method"),
        "data": name,
        "split": split,
        "density": _density(model),
        "scores": score(model.to(on), loader, on),
        **sizes,
    }


def _density(model: nn.Module) -> float:
    if isinstance(model, compaction.CompactNetwork):
        return model.edges / max(1, model.spec["positions"])
    return density(model) if hides(model) else 1.0


def _check_fits(made: dict[str, Any], facts: Mapping[str, Any], images: data.Data) -> None:
    known = facts.get("classes")
    if facts.get("vocabulary") and facts["vocabulary"] != images.contents.get("vocabulary", facts["vocabulary"]):
        raise ValueError(
            f"eval: expected the words that the network has learned, in the order of its training text, got others in "
            f"{images.name}; put its train.txt, valid.txt and test.txt there"
        )
    channels, classes = made.get("in_channels"), made.get("num_classes")
    if channels not in (None, images.in_channels):
        raise ValueError(
            f"eval: expected images of {channels} channels as the network takes, "
            f"got {images.in_channels} in {images.name}"
        )
    if known and images.classes and list(images.classes) != known:
        other = next((name for name in images.classes if name not in known), images.classes[0])
        raise ValueError(
            f"eval: expected the classes that the network knows, {known[0]!r} to {known[-1]!r}, got {other!r} as class "
            f"{images.classes.index(other)} of {images.name}"
        )
    if classes is not None and classes < images.num_classes:
        raise ValueError(
            f"eval: expected at most the network's {classes} classes, got {images.num_classes} in {images.name}"
        )


@torch.no_grad()
def score(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Scores:
    """Return the scores of a model in evaluation mode on all images of a loader."""
    begin_pass(model.eval())
    meter = Meter(device)
    for images, labels in loader:
        logits = model(images).float()
        meter.add(F.cross_entropy(logits, labels, reduction="sum"), logits, labels)
    scores = meter.read()[0]
    return TextScores.of(scores) if isinstance(loader, data.TextLoader) else scores


def summary(found: dict[str, Any]) -> str:
    """What `evaluate` found, as a table for the console."""
    scores, size, dense = found["scores"], found["artifact_bytes"], found["dense_bytes"]
    text = isinstance(scores, TextScores)
    perplexity = {"perplexity": f"{scores.perplexity:.2f}"} if text else {}
    counted = f"{scores.images:,} {'words' if text else 'images'}"
    rows = {
        "method": found["method"] or "unknown",
        "data": f"{found['data']}, {counted} of the {found['split']} split",
        "accuracy": f"{scores.top1:.2%} top-1, {scores.top5:.2%} top-5, loss {scores.loss:.4f}",
        **perplexity,
        "density": f"{found['density']:.4f}",
        "bytes": f"{size:,} as an artifact",
        "dense bytes": f"{dense:,} in float32, {dense / size:.1f} times as much",
    }
    return named(found["network"], rows)
