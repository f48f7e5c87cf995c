"""On a CUDA runtime that runs nothing: what a training step asks of the device, and what comes of errors."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cuda_host import runtime, table

REASON = runtime.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PROGRAM = """
import ctypes
import torch
from tests.cuda_host import fakes
library = fakes.install()
import hiddennet as hn
runtime = ctypes.CDLL(None)


def counts(part):
    text = ctypes.create_string_buffer(1 << 16)
    runtime.mock_counts(text, len(text))
    return [line.replace("\\t", " ") for line in text.value.decode().splitlines() if line.startswith(part)]


"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return runtime.build(tmp_path_factory.mktemp("cudart"))


def _said(library, code: str, **environment: str) -> list[str]:
    done = runtime.run(library, "-c", PROGRAM + code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_steps_ask_what_the_table_says(library):
    done = runtime.run(library, "-m", "tests.cuda_host.steps")
    assert done.returncode == 0, done.stderr
    found = table.differences(json.loads(done.stdout))
    assert not found, "\n".join(["", *found, f"If that is meant: {table.COMMAND}"])


def test_the_table_has_no_waits_and_no_violations():
    steps = json.loads(table.PATH.read_text())["steps"]
    for name, step in steps.items():
        assert not [what for what in step["step"] if what.startswith(("wait", "violation", "allocation"))], name
        assert not [what for what in step["captured"] if what.startswith("violation")], name


def test_a_launch_more_is_a_line_with_its_name():
    steps = json.loads(table.PATH.read_text())["steps"]
    kernel = "kernel: hn::cuda::network_weight_kernel"
    steps["edge_popup"]["step"][kernel] += 1
    steps["random"]["step"]["wait: for a stream"] = 1
    steps["set"]["captured"].pop(kernel)
    assert table.differences(steps) == [
        f"edge_popup, step: {kernel}: expected 1, got 2",
        "random, step: wait: for a stream: expected 0, got 1",
        f"set, captured: {kernel}: expected 1, got 0",
    ]


def test_waits_under_capture_are_violations(library):
    code = """
x = torch.zeros(8, device="cuda")
for bad in (lambda: x.sum().item(), torch.cuda.synchronize):
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        runtime.mock_reset()
        bad()
        print(*counts("violation"))
"""
    item, wait = _said(library, code)
    assert item == "violation: wait: for a stream under capture 1"
    assert wait == "violation: wait: for the device under capture 1"


def test_a_failed_launch_has_a_name_and_leaves_no_error_behind(library):
    code = """
x = torch.zeros(8, device="cuda")
for error in (209, 700):
    runtime.mock_fail_next(error)
    try:
        hn.ops.topk_mask(x, 4)
    except RuntimeError as refused:
        print(str(refused).splitlines()[0])
    print(runtime.cudaPeekAtLastError(), (x + 1).shape[0])
"""
    no_image, after, other, after_too = _said(library, code)
    assert "the CUDA launch failed: cudaErrorNoKernelImageForDevice" in no_image
    assert "compute capability 8.0 or newer" in no_image
    assert "the CUDA launch failed: cudaErrorIllegalAddress" in other
    assert after == after_too == "0 8"


def test_a_refusal_of_ours_is_not_cudas(library):
    code = """
x = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16, device="cuda")
w = torch.zeros(1, 1, 3, 3, device="cuda")
row = torch.zeros(4, dtype=torch.int32, device="cuda")
try:  # the rule kExpectation, which this kernel does not know
    torch.ops.hiddennet.masked_conv_forward(
        x, w, row, [1, 1, 3, 3], False, 5, None, None, 0, 0, w, None, 1.0, 0, 0, 0, [1, 1], [0, 0], [1, 1]
    )
except RuntimeError as refused:
    print(str(refused).splitlines()[0])
"""
    (refusal,) = _said(library, code)
    assert "the CUDA launch refused: the kernel does not take" in refusal


def test_implicit_gemm_takes_every_weight(library):
    code = """
x = torch.zeros(2, 8, 5, 5, device="cuda", requires_grad=True)
for kernel in (1, 3):
    for layout in (torch.contiguous_format, torch.channels_last):
        model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, kernel, bias=False))
        model = hn.hide(model, hn.Generated("signed_constant", seed=0)).cuda().to(memory_format=layout)
        model[0].plan = "implicit_gemm"
        runtime.mock_reset()
        model(x).sum().backward()
        print(*counts("kernel: hn::cuda::masked_conv"))
"""
    assert _said(library, code) == ["kernel: hn::cuda::masked_conv_kernel 2"] * 4


def test_gpu_check_goes_to_its_end(library, tmp_path):
    toolkit, out = tmp_path / "toolkit", tmp_path / "out"
    for name in ("include/cuda_runtime.h", "bin/nvcc", "bin/compute-sanitizer"):  # beside nvcc, not on PATH
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).write_text("#!/bin/sh\necho the toolkit has it\n")
        (toolkit / name).chmod(0o755)
    done = runtime.execute(
        library,
        *("bash", "bench/gpu_check.sh"),
        DRY="1",
        PYTHON=sys.executable,
        OUT=str(out),
        BUILD=str(tmp_path / "build"),
        CUDA_HOME=str(toolkit),
        LIMIT="3000",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr
    (report,) = out.glob("*.md")
    for stage in ("build extension", "kernel tests", "pytest -m cuda", "memcheck", "racecheck"):
        assert f"| {stage} | ok |" in report.read_text(), done.stdout
    assert "the toolkit has it" in report.read_text()
