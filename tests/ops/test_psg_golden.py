"""PSG against what the original computes, in float64: quantisers, convolutions, products and seed layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hiddennet import ops
from hiddennet.nn.flipped import BOUND, activated
from hiddennet.ops import PSGConfig
from tests.golden import Golden
from tests.reference import psg as oracle

pytestmark = pytest.mark.isa

TIGHT = {"rtol": 1e-10, "atol": 1e-13}
BITS = (1, 2, 4, 8, 16)


class Values:
    """The original's arrays as float64."""

    def __init__(self) -> None:
        self.arrays = Golden("peekaboo")

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __call__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name]).double()


@pytest.fixture
def values() -> Values:
    return Values()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("name", "source", "arguments"),
    [
        ("in_signed", "x_signed", {"signed": True}),
        ("in_unsigned", "x_unsigned", {}),
        ("in_unsigned_on_signed", "x_signed", {}),
        ("w", "w", {"signed": True, "over": "channel"}),
        ("codes_signed", "x_signed", {"signed": True, "dequantize": False}),
        ("codes_w", "w", {"signed": True, "over": "channel", "dequantize": False}),
    ],
)
def test_quantisers(values, name, source, arguments, bits):
    x, want = values(f"q/{source}"), values(f"q/{name}_b{bits}")
    assert_close(ops.quantize(x, bits, **arguments), want, **TIGHT)
    over, dequantize = arguments.get("over", "sample_mean"), arguments.get("dequantize", True)
    signed = arguments.get("signed", False)
    assert_close(oracle.psg_quantize(x, bits, oracle.psg_range(x, over), signed, dequantize), want, **TIGHT)
    step = oracle.psg_range(x, over) * (2 if signed else 1) / 2**bits if dequantize else 1.0
    found = ops.quantize(x.float(), bits, **arguments).double()  # a step aside where float32 rounds over a tie
    assert bool(((found - want).abs() <= 1.001 * step).all())
    assert float(((found - want).abs() > 0.02 * step).double().mean()) <= 0.05


def test_quantiser_cases(values):
    x = values("q/x_signed")
    assert_close(ops.quantize(values("q/tie_x"), 4), values("q/tie_unsigned_b4"), **TIGHT)
    assert_close(ops.quantize(values("q/tie_signed_x"), 4, signed=True), values("q/tie_signed_b4"), **TIGHT)
    assert_close(ops.quantize(values("q/tie_x").float(), 4).double(), values("q/tie_unsigned_b4"), rtol=1e-6, atol=0)
    tied = ops.quantize(values("q/tie_signed_x").float(), 4, signed=True).double()
    assert_close(tied, values("q/tie_signed_b4"), rtol=1e-6, atol=0)
    assert_close(ops.quantize(x, 8, signed=True), values("q/in_signed_b8_nopreserve"), **TIGHT)
    found = ops.quantize(x.float(), 8, signed=True).double()
    assert_close(found, values("q/in_signed_b8_float32"), rtol=1e-5, atol=1e-6)
    zeros = values("q/allzero_b8")
    for kind in (torch.float64, torch.float32):
        assert_close(ops.quantize(zeros.to(kind), 8, signed=True).double(), zeros, **TIGHT)
    w, want = values("q/w_zero_filter"), values("q/w_zero_filter_b8")
    empty = want.isnan()  # the original's 0 / 0
    assert bool(empty[2].all()) and not bool(empty[[0, 1, 3]].any())
    for kind, tolerance in ((torch.float64, TIGHT), (torch.float32, {"rtol": 1e-5, "atol": 1e-6})):
        found = ops.quantize(w.to(kind), 8, signed=True, over="channel").double()
        assert_close(found, want.nan_to_num(0.0), **tolerance)


def test_ranges(values):
    x, w = values("q/x_signed"), values("q/w")
    for name in ("in_mean", "keepdim"):
        assert_close(ops.quantize_range(x).view(()), values(f"q/qparams_{name}").view(()), **TIGHT)
    for name in ("in_extreme", "flat0"):
        assert_close(ops.quantize_range(x, "tensor").view(()), values(f"q/qparams_{name}").view(()), **TIGHT)
    assert_close(ops.quantize_range(w, "channel"), values("q/qparams_w"), **TIGHT)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_gradient_quantiser(values, bits):
    gy = values("q/gy")
    for flatten in (0, 1):
        want = values(f"q/gradq_f{flatten}_b{bits}")
        assert_close(ops.quantize(gy, bits, signed=True, over="tensor"), want, **TIGHT)
        x = torch.zeros_like(gy, requires_grad=True)
        oracle.quantize_gradient(x, bits).backward(gy)
        assert_close(x.grad, want, **TIGHT)


ABSOLUTE = {"threshold_mode": "absolute"}
CASES = {  # those that the public functions express
    "readme_cifar": PSGConfig(),
    "rel_mix": PSGConfig(threshold=0.3, sparsify=False),
    "rel_sparse": PSGConfig(threshold=0.3),
    "abs_mix": PSGConfig(threshold=0.05, sparsify=False, **ABSOLUTE),
    "abs_sparse": PSGConfig(threshold=0.05, **ABSOLUTE),
    "zero_thr_mix": PSGConfig(threshold=0.0, sparsify=False, **ABSOLUTE),
    "rel_mix_sign": PSGConfig(threshold=0.3, sparsify=False, sign=True),
    "rel_sparse_sign": PSGConfig(threshold=0.3, sign=True),
    "b448_rel_mix": PSGConfig(4, 8, 0.05, sparsify=False),
    "b448_rel_sparse": PSGConfig(4, 8, 0.05),
    "b228_sign": PSGConfig(2, 8, 0.0, sparsify=False, sign=True, **ABSOLUTE),
    "signed_in": PSGConfig(threshold=0.3, sparsify=False),
    "stride2": PSGConfig(threshold=0.3, sparsify=False),
    "nomask": PSGConfig(threshold=0.3, sparsify=False),
    "no_backward": PSGConfig(32, 32, 0.0),
    "no_backward_sign": PSGConfig(32, 32, 0.0, sign=True),
    "msb32": PSGConfig(32, 32, 0.3, sparsify=False),
}


def options_of(name: str) -> oracle.PSGOptions:
    c = CASES[name]
    return oracle.PSGOptions(
        c.input_bits,
        c.gradient_bits,
        -c.threshold if c.relative else c.threshold,
        c.sparsify,
        c.sign,
        input_signed=name == "signed_in",
        predictive_backward=not name.startswith("no_backward"),
    )


def check_conv(values, name, layer, dtype, tolerance, parts=("y", "gx", "gw")) -> None:
    """layer(x, weight, stride): against the case's arrays."""
    wanted = {part: values(f"conv/{name}/{part}") for part in parts}
    x = values("conv/x_signed" if name == "signed_in" else "conv/x_unsigned").to(dtype).requires_grad_()
    w = values("conv/w").to(dtype).requires_grad_()
    mask = torch.ones_like(w) if name == "nomask" else values("conv/mask").to(dtype)
    stride = 2 if name == "stride2" else 1
    y = layer(x, w * mask, stride)
    y.backward(values(f"conv/gy_s{stride}").to(dtype))
    for part, found in (("y", y), ("gx", x.grad), ("gw", w.grad)):
        if part in wanted:
            assert_close(found.detach().double(), wanted[part], **tolerance, msg=lambda m, p=part: f"{p}: {m}")


@pytest.mark.parametrize("name", CASES)
def test_convolutions(values, name):
    def layer(x, w, stride):
        signed = name == "signed_in"
        return ops.psg_conv2d(x, w, None, stride, 1, config=CASES[name], input_signed=signed)

    check_conv(values, name, layer, torch.float64, {"rtol": 1e-10, "atol": 1e-12})
    check_conv(values, name, layer, torch.float32, {"rtol": 1e-4, "atol": 1e-4})


@pytest.mark.parametrize("name", CASES)
def test_oracle(values, name):
    options = options_of(name)
    layer = lambda x, w, stride: oracle.psg_conv2d(x, w, options, stride, 1)  # noqa: E731
    check_conv(values, name, layer, torch.float64, {"rtol": 1e-10, "atol": 1e-12})


def test_both_candidates(values):
    """The gradients before mixing and masking: all low-bit, all exact."""
    for config, part in ((PSGConfig(threshold=0.0), "g_msb_unmasked"), (PSGConfig(32, 32, 0.0), "g_full_unmasked")):
        want = values(f"conv/rel_mix/{part}")
        x, w = values("conv/x_unsigned"), (values("conv/w") * values("conv/mask")).requires_grad_()
        ops.psg_conv2d(x, w, None, 1, 1, config=config).backward(values("conv/gy_s1"))
        assert_close(w.grad, want, rtol=1e-10, atol=1e-12)


LINEAR = {
    "rel_mix": PSGConfig(threshold=0.3, sparsify=False),
    "rel_sparse": PSGConfig(threshold=0.3),
    "abs_sparse_sign": PSGConfig(threshold=0.02, sign=True, **ABSOLUTE),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("as_convolution", [False, True])
def test_products(values, name, as_convolution):
    for dtype, tolerance in ((torch.float64, TIGHT), (torch.float32, {"rtol": 1e-4, "atol": 1e-5})):
        x, w = (values(f"lin/{part}").to(dtype).requires_grad_() for part in "xw")
        if as_convolution:
            y = ops.psg_conv2d(x[:, :, None, None], w[:, :, None, None], config=LINEAR[name])[:, :, 0, 0]
        else:
            y = ops.psg_linear(x, w, config=LINEAR[name])
        y.backward(values("lin/gy").to(dtype))
        for part, found in (("y", y), ("gx", x.grad), ("gw", w.grad)):
            assert_close(found.detach().double(), values(f"lin/{name}/{part}"), **tolerance)


def seeded(values, activation: str, config: PSGConfig | None) -> dict[str, torch.Tensor]:
    """The original's seed layer: output, and gradients of input, latent scores and bounds."""
    x, t = values("conv/x_unsigned").requires_grad_(), values("seed/t").requires_grad_()
    bounds = tuple(torch.full((1,), bound, dtype=torch.float64, requires_grad=True) for bound in (-BOUND, BOUND))
    w = values("conv/mask") * activated(values("conv/w"), t, activation, bounds)
    y = F.conv2d(x, w, padding=1) if config is None else ops.psg_conv2d(x, w, None, 1, 1, config=config)
    y.backward(values("conv/gy_s1"))
    return {"y": y.detach(), "gx": x.grad, "gt": t.grad, "glo": bounds[0].grad, "ghi": bounds[1].grad}


@pytest.mark.parametrize("name", ["rel_mix", "rel_sparse"])
def test_seed_layers(values, name):
    found = seeded(values, "flipping", CASES[name])
    for part in ("y", "gx", "gt"):
        assert_close(found[part], values(f"seed/{name}/{part}"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["pruning", "flipping", "ternary", "none"])
def test_plain_seed_layers(values, activation):
    found = seeded(values, activation, None)
    parts = {"none": ["y"], "ternary": ["y", "gt", "glo", "ghi"]}.get(activation, ["y", "gt"])
    for part in parts:
        want = values(f"seedplain/{activation}/{part}")
        assert_close(found[part].view(want.shape), want, rtol=1e-10, atol=1e-12)
    if activation == "none":
        assert found["gt"] is None
