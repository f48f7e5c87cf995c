"""The CPU's AVX-512, AVX2 and scalar paths give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

CODE = """
import hashlib, torch
from hiddennet import ops
torch.manual_seed(0)
digest = hashlib.sha256()
def add(t): digest.update(t.detach().contiguous().view(torch.uint8).numpy().tobytes())
source, numbers = ops.WeightSource.generate((6, 16, 3, 3), seed=3), torch.randn(6, 16, 3, 3)  # no ties
for by, dtype in (("magnitude", torch.float32), ("value", torch.bfloat16), ("magnitude", torch.bfloat16)):
    for layout in (torch.contiguous_format, torch.channels_last):
        s = numbers.contiguous(memory_format=layout).requires_grad_()
        w = ops.masked_weight(s, 300, source=source, by=by, dtype=dtype)
        add(w), add(torch.autograd.grad(w, s, numbers.to(dtype))[0])
for shape in ((43, 3), (33, 17, 3, 3), (300, 301)):
    scores = (torch.randn(shape) * 16).round() / 16
    for init in ops.INITS:
        source = ops.WeightSource.generate(shape, init, seed=3, layer=1)
        for by in ("magnitude", "value"):
            k = scores.numel() // 3
            row = ops.topk_select([scores], [k], by=by)
            row = ops.topk_select([scores + 1e-4], [k], by=by, hint=row)
            add(row[0, :2])
            flags = ops.pack_mask(torch.rand(shape) < 0.6)
            rules = [ops.Mask.selected(row[0], by), ops.Mask.sampled(torch.tensor([4]), seed=1)]
            rules += [ops.Mask.rounded_at(row[0], flags), ops.Mask.rounded(0.25, flags), ops.Mask.scored(flags)]
            rules += [ops.Mask.rounded_at_random(torch.tensor([4]), 1, flags)]
            for rule in rules:
                for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]:
                    s = scores.contiguous(memory_format=layout).requires_grad_()
                    for dtype in (torch.float32, torch.bfloat16, torch.float16):
                        w = ops.masked_weight(s, rule, source=source, dtype=dtype)
                        add(w)
                    if rule.kind != "sampled":  # a sampled rule's gradient has exp() in it, which is libm's
                        add(torch.autograd.grad(w, s, torch.ones_like(w))[0])
                    add(ops.rule_mask(s, rule, s.shape, layer=1))
        init = ops.init_scale(shape, init)
        for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]:
            s, w = scores.contiguous(memory_format=layout), torch.zeros(shape).contiguous(memory_format=layout)
            row = ops.topk_select([s], [s.numel() // 3], by="value")
            for e, rate in ((1, 0.3), (2, 0.01), (3, 1.0), (4, 0.5)):
                ops.rerandomize_([w], [s], row, [init], seed=3, layers=[1], redraw=e, rate=rate)
                add(w)
            ops.rerandomize_([w], [s], row, [init], seed=3, layers=[1], redraw=5, decay=0.7, mix=0.2)
            add(w)
    s, m, v = torch.rand(shape), torch.zeros(shape), torch.zeros(shape)
    flags = ops.pack_mask(scores > 0)
    for step in (1, 2):
        adam = {"betas": (0.9, 0.99), "steps": [step], "l1": 0.01, "l2": 0.1, "flags": [flags]}
        ops.score_step_([s], [scores], [m], [v], lr=0.01, **adam)
        ops.score_step_([s], [scores], [m], lr=0.01, momentum=0.9)
        add(s), add(m), add(v)
        for plane in (None, flags):
            for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]:
                w, g, a = (t.contiguous(memory_format=layout) for t in (scores.clone(), s, m.clone()))
                count = torch.zeros(2, dtype=torch.int64)
                counters, how = ([count[:1]], [count[1:]]), {"fresh": [step == 1], "flags": [plane]}
                ops.bop_step_([w], [g], [a], *counters, adaptivity_rate=0.3, threshold=0.01, **how)
                add(w), add(a), add(count)
for n, c, size, o, k, dtype in ((3, 33, 7, 25, 3, torch.uint8), (40, 3, 12, 9, 7, torch.int16)):
    for low in (-32768, -9):  # all extreme, or drawn
        x = torch.randint(low, low + 1 if low < -9 else 9, (n, c, size, size)).to(dtype)
        g = torch.randint(low, low + 1 if low < -9 else 9, (n, o, size, size)).to(torch.int16)
        one = torch.ones(1)
        for t in ops.code_weight_gradient(x, g, one, one, (o, c, k, k), padding=k // 2): add(t)
from hiddennet.ops.quantize import centred_codes, range_of
for shape in ((3, 33, 9, 11), (2, 64, 16, 16), (5, 70)):
    for t in (torch.randn(shape), torch.randn(shape).bfloat16()):
        for bits, signed, over in ((8, False, "sample_mean"), (7, True, "tensor"), (16, True, "tensor")):
            for turned in (False, True)[: len(shape) // 2]:
                for part in centred_codes(t, range_of(t, over), bits, signed, turned): add(part)
        g = t.float()
        torch.ops.hiddennet.threshold_gradient_(g, None, g.abs().amax().view(1), 0.2, False)
        add(g)
print(digest.hexdigest())
"""


def test_vectors_equal_scalar():
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no AVX2: there is one path only")
    digests = []
    for isa in ("", "avx512", "avx2", "scalar"):
        environment = {**os.environ, "HIDDENNET_ISA": isa}
        run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        digests.append(run.stdout)
    assert len(set(digests)) == 1
