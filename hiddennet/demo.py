"""The main job on data that needs no download: dense, random mask and edge-popup on digits, then the exported file.

`python -m hiddennet.demo` (or `make demo`). Edge-popup never trains a weight; the file that is evaluated at the end
holds a seed, one bit a weight and nothing else of the network's weights.
"""

import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiddennet.run import guarded
from hiddennet.tables import aligned

CONFIGS = {"digits-dense": "dense", "digits-random": "random mask", "digits": "edge-popup"}
HEAD = ("", "weights kept", "weights trained", "test accuracy", "file", "seconds")
GAP, SIDE = 14, 1024  # of the picture, in pixels
COLORS = ((242, 242, 238), (36, 99, 178), (222, 122, 44))  # pruned, kept and above 0, kept and below 0


def size(count: int) -> str:
    """Bytes in three digits: 1.13 MB, 604 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def trained(run: Path) -> str:
    """Which of a run's weight tensors its best epoch has changed: all, none, or how many."""
    from hiddennet.train import checkpoint

    first, best = (checkpoint.load(run / "checkpoints" / name)["model"] for name in ("first.pt", "best.pt"))
    weights = [name for name, tensor in best.items() if name.endswith("weight") and tensor.ndim > 1]
    changed = [name for name in weights if not first[name].equal(best[name])]
    if len(changed) in (0, len(weights)):
        return "all" if changed else "none"
    return f"{len(changed)} of {len(weights)} layers"


def draw(artifact: str | Path, file: Path) -> Path:
    """A picture of each hidden layer's mask, a row an output, a pixel or more a weight, in the colour of its sign."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw

    from hiddennet.artifact import load
    from hiddennet.nn import hidden_layers

    layers, y = {}, GAP
    model = load(artifact).eval()
    with torch.no_grad():
        for name, layer in hidden_layers(model).items():
            signs = layer.weight.sign().flatten(1)
            if len(signs) > signs.shape[1]:  # lying
                signs = signs.T
            zoom = max(1, min(12, SIDE // signs.shape[1]))
            layers[f"{name}: {'x'.join(map(str, layer.weight_shape))}, {layer.kept():,.0f} kept"] = (
                signs.to(torch.int8).numpy().repeat(zoom, 0).repeat(zoom, 1)
            )
    width = max([SIDE, *(picture.shape[1] for picture in layers.values())]) + 2 * GAP
    height = GAP + sum(picture.shape[0] + 3 * GAP for picture in layers.values())
    page = Image.new("RGB", (width, height), "white")
    palette, pen = np.array(COLORS, dtype=np.uint8), ImageDraw.Draw(page)
    for said, picture in layers.items():
        pen.text((GAP, y), said, fill=(40, 40, 40))
        page.paste(Image.fromarray(palette[picture]), (GAP, y + GAP))
        y += picture.shape[0] + 3 * GAP
    page.save(file)
    return file


def told(records: Mapping[str, dict[str, Any]]) -> str:
    """The runs side by side, a line each."""
    lines = [
        (
            called,
            f"{record['density']:.0%}",
            trained(Path(record["run"])),
            f"{record['test_top1']:.2%}",
            size(record["artifact_bytes"]),
            f"{record['seconds']:.1f}",
        )
        for called, record in records.items()
    ]
    return aligned([HEAD, *lines], left=1)


def execute() -> int:
    """Run the three configs anew, print them side by side, evaluate the artifact; return the exit status."""
    from hiddennet import config
    from hiddennet.train import evaluate, experiment

    begun, records = time.perf_counter(), {}
    configs = {called: config.load(name) for name, called in CONFIGS.items()}
    print("1797 handwritten digits, one network, three ways to make it work:\n", flush=True)
    for called, one in configs.items():
        print(f"  {called}: {one.train.epochs} epochs ...", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):
            records[called] = experiment.run(one, fresh=True, bar=False)
    hidden = records["edge-popup"]
    again = evaluate.evaluate(hidden["artifact"])
    picture = draw(hidden["artifact"], Path(hidden["run"]) / "masks.png")
    print(f"\n{told(records)}\n")
    print("Edge-popup trained no weight: it chose among random ones. Its file is a seed and one bit a weight:")
    print(f"  {hidden['artifact']}, read back: {again['scores'].top1:.2%} of the test images right")
    print(f"  {picture}: what was kept, layer by layer; blue above 0, orange below")
    print("\nNext:")
    here = Path(sys.executable).with_name("hiddennet")
    hiddennet = "hiddennet" if shutil.which("hiddennet") else os.path.relpath(here)
    runs = " ".join(record["run"] for record in records.values())
    for command, said in (
        (f"{hiddennet} run digits method.density=0.1", "keep a tenth"),
        (f"{hiddennet} report {runs}", "curves and layers as a page"),
        (f"{hiddennet} list methods", "what else finds such networks; also models, data, configs"),
    ):
        print(f"  {command}\n      {said}")
    print(f"\nAll of it took {time.perf_counter() - begun:.0f} s.")
    return 0


def main() -> int:
    return guarded(execute, "hiddennet demo")


if __name__ == "__main__":
    sys.exit(main())
