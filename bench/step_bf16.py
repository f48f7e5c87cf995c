"""Training steps of runs in bfloat16 (autocast) beside float32, and what train.amp=auto takes on this CPU.

python -m bench.step_bf16 [--json PATH] [--quick]

Steps as a run takes them (train/engine.py, channels_last); `auto` goes by the ratio of the heaviest layers alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench import table
from bench.harness import Effort
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet import config
from hiddennet.train.build import build_model
from hiddennet.train.engine import Engine
from hiddennet.train.heaviest import heaviest
from hiddennet.train.precision import PAYS, measure
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter

RESNET20 = "papers/rare_gems/resnet20-cifar10@gem-miner-density-0.0144"
RESNET18 = "edge_popup/cifar10-resnet18@signed-constant"
RUNS = {  # channels, side and batch
    "digits": (1, 8, 32),
    "mnist-fc": (1, 28, 128),
    "cifar10-conv4": (3, 32, 64),
    RESNET20: (3, 32, 64),
    RESNET18: (3, 32, 16),
}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def steps(name: str, channels: int, side: int, batch: int) -> tuple[dict, torch.nn.Module]:
    """A step in each dtype, of one network whose scores go on from step to step."""
    settings = config.load(name, ["train.device=cpu"])
    model, method = build_model(settings, 10, channels, side)
    engine = Engine(model.train(), settings, torch.device("cpu"), Ranks(), method)
    x, y = torch.randn(batch, channels, side, side), torch.randint(10, (batch,))
    meter = Meter(torch.device("cpu"))

    def step(dtype: torch.dtype | None) -> None:
        engine.autocast = dtype
        engine.step(x, y, meter, batch)

    return {key: lambda dtype=dtype: step(dtype) for key, dtype in DTYPES.items()}, model


def cases(at: Setting) -> Iterator[Case]:
    for name, (channels, side, batch) in RUNS.items():
        run, model = steps(name, channels, side, 2 if at.quick else batch)

        def found(_: object, model=model, channels=channels, side=side, batch=batch) -> Iterator[Value]:
            seconds = measure(heaviest(model, torch.zeros(1, channels, side, side)), batch, channels_last=True)
            yield Value(f"heaviest layers; auto from {PAYS}", seconds["float32"] / seconds["bfloat16"], "x as fast")

        claims = [Claim("float32", "bfloat16")]
        yield Case(f"step {name.rpartition('/')[2]}, batch {batch}", run, claims=claims, values=found)


def main() -> None:
    table.main("step_bf16", Benchmark(cases, Effort(rounds=15, min_rounds=5, budget_s=20.0)), __doc__)


if __name__ == "__main__":
    main()
