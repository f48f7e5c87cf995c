"""Evaluation of a hidden network beside the dense one of its weights, and beside itself making them at each forward.

python -m bench.eval_hidden [--device cpu|cuda] [--json PATH] [--quick]

The CIFAR ResNet-18 with signed constants, density 0.5, float32, channels_last, eval mode, inference_mode.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench import nets, table
from bench.harness import Effort, same
from bench.table import Benchmark, Case, Claim, Setting

KEPT, ANEW, DENSE = "hiddennet", "hiddennet, weights made at each forward", "dense"
BATCHES = (1, 128)
BAR = 1.1


def evaluated(model: nn.Module, x: Tensor, *, forget: bool = False):
    """A forward of evaluation; forget: everything that was made before, first."""

    @torch.inference_mode()
    def run() -> Tensor:
        if forget:
            for layer in nets.hidden_list(model):
                layer._kept.forget()
        return model(x)

    return run


def cases(at: Setting) -> Iterator[Case]:
    """Hidden against dense, equal first."""
    name = "cifar_resnet18"
    model = nets.hidden(name, at.device).to(memory_format=torch.channels_last)
    dense = nets.dense_twin(model, name, at.device).to(memory_format=torch.channels_last)
    model.eval(), dense.eval()
    for batch in (2,) if at.quick else BATCHES:
        x = torch.randn(batch, 3, 32, 32, device=at.device).contiguous(memory_format=torch.channels_last)
        runs = {KEPT: evaluated(model, x), ANEW: evaluated(model, x, forget=True), DENSE: evaluated(dense, x)}

        def check(runs: dict = runs) -> None:
            for other in (ANEW, DENSE):
                same(f"logits, {other}", runs[KEPT](), runs[other](), rtol=1e-5)

        claims = [Claim(KEPT, DENSE, at_most=at.on_cpu_only(BAR)), Claim(ANEW, KEPT)]
        yield Case(f"evaluation {name}, batch {batch}", runs, check, claims)


def main() -> None:
    table.main("eval_hidden", Benchmark(cases, Effort(rounds=15, min_rounds=7, budget_s=20.0)), __doc__)


if __name__ == "__main__":
    main()
