"""Mistakes that the interpreted kernels' tests must find: each is made in a copy of csrc, and turns its test red.

python tests/ptx/mutations.py FOLDER NVCC [OPTION ...]: FOLDER for the copies; the compiler and its options but for the
includes of csrc, which come first here. Exit status 1 where a mistake is not found, or its place is gone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mistake:
    """`old` of a file under csrc becomes `new`, once; the test of that name says so, of which only `cases` runs."""

    what: str
    file: str
    old: str
    new: str
    test: str
    cases: str = ""


MISTAKES = (
    Mistake(
        "a dropped __syncthreads: a block's sum is read before all warps have written theirs",
        "base/collectives.cuh",
        "= v;\n  __syncthreads();\n  v = warp_sum(",
        "= v;\n  v = warp_sum(",
        "test_collectives",
    ),
    Mistake(
        "a dropped __syncthreads: a stage of codes is multiplied before all threads' copies are there",
        "ops/code_weight_gradient/code_weight_gradient.cuh",
        "cp_async_wait<kCodeStages - 2>();\n      __syncthreads();",
        "cp_async_wait<kCodeStages - 2>();",
        "test_code_weight_gradient",
        "groups",
    ),
    Mistake(
        "a dropped wait: a stage of codes is multiplied before its copies are there",
        "ops/code_weight_gradient/code_weight_gradient.cuh",
        "cp_async_wait<kCodeStages - 2>();\n",
        "",
        "test_code_weight_gradient",
        "chunks",
    ),
    Mistake(
        "a wait for one group of copies of codes too few",
        "ops/code_weight_gradient/code_weight_gradient.cuh",
        "cp_async_wait<kCodeStages - 2>",
        "cp_async_wait<kCodeStages - 1>",
        "test_code_weight_gradient",
        "chunks",
    ),
    Mistake(
        "a ticket without its release and acquire: the last block reads what others have not shown",
        "base/memory.cuh",
        "atom.add.acq_rel.gpu",
        "atom.add.relaxed.gpu",
        "test_topk_select",
    ),
    Mistake(
        "a word that is published without a release",
        "base/memory.cuh",
        "st.release.gpu.global.u32",
        "st.relaxed.gpu.global.u32",
        "test_topk_select",
    ),
    Mistake(
        "a published word that is read without an acquire",
        "base/memory.cuh",
        "ld.acquire.gpu.global.u32",
        "ld.relaxed.gpu.global.u32",
        "test_topk_select",
    ),
    Mistake(
        "a dropped __syncthreads: warps of a step list scores from a place that is not yet known",
        "ops/score_step/score_step.cuh",
        "  __syncthreads();\n  uint32_t slot = *scratch",
        "  uint32_t slot = *scratch",
        "test_counted_select",
        "small_step",
    ),
    Mistake(
        "no wait for asynchronous copies",
        "base/memory.cuh",
        '  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");\n',
        "",
        "test_memory",
    ),
    Mistake(
        "a wait for one group of copies too few",
        "ops/masked_conv/masked_conv.cuh",
        "cp_async_wait<kStages - 2>",
        "cp_async_wait<kStages - 1>",
        "test_masked_conv",
        "shapes",
    ),
    Mistake(
        "a wrong lane: two fragments of a matrix change places",
        "base/mma.cuh",
        '{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "',
        '{%0,%1,%2,%3}, {%5,%4,%6,%7}, {%8,%9}, "',
        "test_mma",
    ),
)


def find(mistake: Mistake, folder: Path, compiler: list[str]) -> str | None:
    """Make the mistake, build and run its test; return why it was not found, or None."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    source = folder / "csrc" / mistake.file
    text = source.read_text()
    if text.count(mistake.old) != 1:
        return f"expected its place once in {mistake.file}, got it {text.count(mistake.old)} times"
    source.write_text(text.replace(mistake.old, mistake.new))
    program = folder / mistake.test
    command = [compiler[0], f"-I{folder / 'csrc'}", *compiler[1:], str(ROOT / "tests" / "cpp" / f"{mistake.test}.cpp")]
    built = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
    if built.returncode:
        return f"does not compile: {built.stderr}"
    try:
        ran = subprocess.run([program, *filter(None, [mistake.cases])], capture_output=True, text=True, timeout=200)
    except subprocess.TimeoutExpired:
        print(f"  {mistake.test} does not end")
        return None
    if ran.returncode == 0:
        return f"{mistake.test} passes"
    print(f"  {mistake.test}: {ran.stderr.strip().splitlines()[0][:160]}")
    return None


def main() -> int:
    """Make every mistake; say what found it, or that nothing did."""
    folder, compiler = Path(sys.argv[1]), sys.argv[2:]
    missed = 0
    for mistake in MISTAKES:
        print(mistake.what, flush=True)
        reason = find(mistake, folder, compiler)
        if reason is not None:
            missed += 1
            print(f"  NOT FOUND: {reason}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(MISTAKES) - missed} of {len(MISTAKES)} mistakes found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
