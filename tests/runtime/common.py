"""What the tests of the runtime share: files of models, and errors against sums in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn

rt = pytest.importorskip("hiddennet.runtime", reason="hiddennet.runtime is not built here")


def warmed(model: nn.Module) -> nn.Module:
    """The model in evaluation, with statistics, scales and shifts that are not the default ones."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def samples(shape, count: int = 3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(7))


def saved(model: nn.Module, path, shape, **options):
    """The model's network, run by the runtime."""
    hn.export(model, path, runtime=True, example=torch.zeros(1, *shape))
    return rt.load(path, bf16=False, **options)


@torch.no_grad()
def check_outputs(model: nn.Module, path, shape, exported: nn.Module | None = None) -> None:
    """Export, load, and compare what is computed with sums in double precision: the error is at most twice torch's own,
    and an eps of the largest output. exported: what computes the same; default: the model.

    A batch of 16 images, which fill the lanes of registers, and a few; in either layout; bfloat16 within its rounding.
    """
    net, x = saved(model if exported is None else exported, path, shape), samples(shape, 16)
    want = hn.plain(model).double()(x.double()).numpy()
    torchs = np.abs(model(x).double().numpy() - want).max()
    most = np.abs(want).max()
    bar = 2 * max(torchs, np.finfo(np.float32).eps * most)
    for count in (16, 3):
        got = net(x[:count].numpy())
        assert got.shape == (count, *want.shape[1:]) and got.dtype == np.float32
        error = np.abs(got - want[:count]).max()
        assert error <= bar, (count, error, torchs)
    if len(shape) == 3 and want.ndim == 2:
        last = net(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)), layout="nhwc")
        assert np.abs(last - want).max() <= bar
    half = rt.load(path, bf16=True)
    assert half.bf16 and np.abs(half(x.numpy()) - want).max() <= 0.05 * most
