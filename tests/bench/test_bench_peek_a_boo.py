"""Peek-a-Boo's re-implemented sequences give what the original system gave."""

from __future__ import annotations

import pytest
import torch

from bench.originals_peek_a_boo import OriginalBop
from tests.golden import Golden


@pytest.mark.parametrize("name", ["readme", "fast", "tau0"])
def test_bop(name):
    """Weights, averages and flips of every step, in float64 as they were computed."""
    file = Golden("peekaboo")
    values = {k.split("/")[2]: torch.from_numpy(file[k]) for k in file if k.startswith(f"bop/{name}/")}
    params = [values[f"w0_{x}"].double() for x in "ab"]
    bop = OriginalBop(params, *values["hyper"].tolist())
    for step, flips in enumerate(values["flips"]):
        for p, x in zip(params, "ab", strict=True):
            p.grad = values[f"g_{x}"][step].double()
        bop.step()
        assert bop.flips == flips.tolist()
        for p, m, x in zip(params, bop.averages, "ab", strict=True):
            assert torch.equal(p, values[f"w_{x}"][step])
            torch.testing.assert_close(m, values[f"m_{x}"][step], rtol=1e-10, atol=0)
        if step + 1 in values["decay_after_steps"]:
            bop.rate *= values["decay_ratio"].item()
    for counted, x in zip(bop.weight_flips, "ab", strict=True):
        assert torch.equal(counted.float(), values[f"weight_flips_{x}"])
