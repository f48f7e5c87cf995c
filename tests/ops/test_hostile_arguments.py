"""Kinds of tensors and sizes that no op takes: one sentence each, and no process ends."""

from __future__ import annotations

import inspect

import pytest
import torch

import hiddennet as hn
from hiddennet import ops

NAMES = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
NO_TENSORS = ("default_plan", "default_wired_plan", "generate_weight", "init_scale")  # their first argument is none
KINDS = {
    "None": lambda: None,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(2, 4)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.randn(3, 4)], layout=torch.jagged),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    "complex": lambda: torch.eye(3).to(torch.complex64),
}


def refused(call, *arguments, **options) -> str:
    with pytest.raises((TypeError, ValueError), match="expected") as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_TENSORS])
def test_kinds_of_tensors(name, kind):
    function, value = getattr(ops, name), KINDS[kind]()
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    positional = [value for p in needed if p.kind is not p.KEYWORD_ONLY]
    refused(function, *positional, **{p.name: value for p in needed if p.kind is p.KEYWORD_ONLY})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["None", "nested", "jagged", "quantised", "complex"])
def test_kinds_of_inputs(kind):
    value = KINDS[kind]()
    for layer in (hn.HiddenConv2d(4, 3, 3), hn.nn.Wiring(4, 3, density=0.5)):
        refused(layer, value)
    if kind not in ("nested", "jagged"):  # torch multiplies those
        refused(hn.HiddenLinear(4, 3), value)


@pytest.mark.parametrize("stride", [(1, 2**31 - 1), (2_000_000_000, 1), (0, 1), (-1, 1), (1, 1.5)])
def test_strides_that_end_torchs_process(stride):
    x, weight = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(8, 4, 3, 3, requires_grad=True)
    config = ops.PSGConfig()
    said = refused(ops.psg_conv2d, x, weight, stride=stride, padding=1, config=config)
    assert "expected stride to be two ints in [1, 2^29]" in said
    refused(ops.psg_conv2d, x.detach(), weight.detach(), stride=stride, padding=1, config=config)
    refused(ops.masked_conv2d, x, torch.randn_like(weight), 9, source=ops.WeightSource.store(weight), stride=stride)
    y = ops.psg_conv2d(x, weight, stride=(1, 2**29), padding=1, config=config)
    assert y.shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    "hint",
    [
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(2, 4, dtype=torch.int32),
        torch.zeros(4, 1, dtype=torch.int32).t(),
        torch.zeros(1, 4),
        [[0, 0, 0, 0]],
    ],
)
def test_hints(hint):
    if isinstance(hint, torch.Tensor) and hint.shape == (1, 4) and hint.dtype == torch.int32:
        hint = torch.zeros(1, 8, dtype=torch.int32)[:, ::2]
    refused(ops.topk_select, [torch.randn(9)], [3], hint=hint)


def test_a_range_a_channel_of_a_vector():
    x = torch.tensor([-3.0, 0.5, 2.0])
    assert torch.equal(ops.quantize_range(x, "channel"), x.abs())
    assert ops.quantize(x, 8, signed=True, over="channel").shape == x.shape


def test_masks_made_by_hand():
    scores, shape = torch.randn(4, 6), torch.Size([4, 6])
    row = torch.zeros(4, dtype=torch.int32)
    for mask in (
        ops.Mask("value", row),  # needs scores
        ops.Mask("magic", row),
        ops.Mask("bits", row),
        ops.Mask("bits", row, bits=torch.zeros(2, dtype=torch.uint8)),
        ops.Mask("bits", row[:2], bits=torch.zeros(3, dtype=torch.uint8)),
        ops.Mask("sampled", row),
        ops.Mask("sampled", row, step=torch.zeros(2, dtype=torch.int64)),
    ):
        refused(ops.rule_mask, None, mask, shape)
    refused(ops.rule_mask, scores[:2], ops.Mask("value", row), shape)
    refused(ops.rule_mask, scores, row, shape)
    assert ops.rule_mask(None, ops.Mask("bits", row, bits=torch.full((3,), 255, dtype=torch.uint8)), shape).all()


def int32(*numbers):
    return torch.tensor(numbers, dtype=torch.int32)


@pytest.mark.parametrize(
    "starts, sources, values",
    [
        (int32(0, 2, 3), int32(0, 1, 9), torch.ones(3)),
        (int32(0, 2, 3), int32(0, 1, -9), torch.ones(3)),
        (int32(0, 2, 99), int32(0, 1, 3), torch.ones(3)),
        (int32(-5, 2, 3), int32(0, 1, 3), torch.ones(3)),
        (int32(0, 3, 1), int32(0, 1, 3), torch.ones(3)),
        (int32(), int32(0, 1, 3), torch.ones(3)),
        (int32(0, 2, 3)[None], int32(0, 1, 3), torch.ones(3)),
        (int32(0, 2, 3), int32(0, 1, 3), torch.ones(2)),
        (int32(0, 2, 3), torch.ones(3), torch.ones(3)),
        ([0, 2, 3], int32(0, 1, 3), torch.ones(3)),
        (None, None, None),
    ],
)
def test_edges_made_by_hand(starts, sources, values):
    refused(ops.Edges, starts, sources, values, 4)
    right = ops.Edges(int32(0, 2, 3), int32(0, 1, 3), torch.ones(3), 4)
    assert ops.wired_sum(torch.ones(1, 4, 2, 2), right)[0, :, 0, 0].tolist() == [2.0, 1.0]


FILLED = {"int": 0, "bool": False, "float": 1.0, "List[int]": [1], "List[float]": [1.0]}
RAW = [name for name in ops.__all__ if hasattr(torch.ops.hiddennet, name)]


@pytest.mark.parametrize("name", [*RAW, "masked_weight_backward", "masked_conv_forward", "code_range", "edge_starts"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_raw_ops_without_a_tensor(name, device):
    op, t = getattr(torch.ops.hiddennet, name).default, torch.zeros(1, 2, 3, 3, device=device)
    arguments = op._schema.arguments
    whole = [[t] if str(a.type) == "List[Tensor]" else FILLED.get(str(a.type), t) for a in arguments]
    for place, argument in enumerate(arguments):
        if str(argument.type) == "Tensor":
            with pytest.raises((TypeError, RuntimeError)):
                op(*whole[:place], None, *whole[place + 1 :])
