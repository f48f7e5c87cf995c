"""The template op's test: the five blocks every op has. Copy it to begin a new one."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from tests.checks import assert_equal


def test_by_eye(device):
    assert ops.scale(torch.tensor([1.0, -2.0], device=device), 3.0).tolist() == [3.0, -6.0]


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1025, 100_003])
def test_equals_the_reference(device, n):
    x = torch.randn(n)
    assert_equal(ops.scale(x.to(device), 0.3), x * torch.tensor(0.3))


def test_properties(device):
    x = torch.randn(7, 5, device=device)
    assert_equal(ops.scale(x.t(), 2.0), (x * 2).t())
    assert_equal(ops.scale(ops.scale(x, 2.0), 0.5), x)


def test_gradient(device):
    x = torch.randn(9, device=device, requires_grad=True)
    ops.scale(x, 2.5).sum().backward()
    assert x.grad.tolist() == [2.5] * 9


def test_opcheck_compile_and_bad_input(device):
    x = torch.randn(5, device=device)
    torch.library.opcheck(torch.ops.hiddennet.scale.default, (x, 2.0))
    y = x.clone().requires_grad_()
    compiled = torch.compile(lambda t: ops.scale(t, 2.0), fullgraph=True, backend="aot_eager")
    compiled(y).sum().backward()
    assert y.grad.tolist() == [2.0] * 5
    with pytest.raises(TypeError, match="expected x of dtype float32, got float64"):
        ops.scale(x.double(), 2.0)
