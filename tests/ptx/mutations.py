"""Mistakes that the interpreted kernels' tests must find: each is made in a copy of csrc, and turns its test red.

python tests/ptx/mutations.py PROGRAMS FOLDER NVCC [OPTION ...]: PROGRAMS has the tests as they are built, which run
the PTX that is made of a copy in place of their own; FOLDER is for the copies; the compiler and its options but for the
includes of csrc, which come first here. Exit status 1 where a mistake is not found, or its place is gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
        "a dropped __syncthreads: redrawn weights are taken from the stage before they are there",
        "ops/rerandomize/rerandomize.cuh",
        "  __syncthreads();\n  if (!u.mine) return;\n  const uint32_t bits = u.take_bits",
        "  if (!u.mine) return;\n  const uint32_t bits = u.take_bits",
        "test_rerandomize",
        "networks",
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


NOT_RUN = 2  # the runtime's exit status where a program and its PTX do not fit


def find(mistake: Mistake, programs: Path, folder: Path, compiler: list[str]) -> tuple[bool, str]:
    """Make the mistake, compile it and run its test: was it found, and by what, or why not."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    source = folder / "csrc" / mistake.file
    text = source.read_text()
    if text.count(mistake.old) != 1:
        return False, f"expected its place once in {mistake.file}, got it {text.count(mistake.old)} times"
    source.write_text(text.replace(mistake.old, mistake.new))
    ptx = folder / f"{mistake.test}.ptx"
    test = ROOT / "tests" / "cpp" / f"{mistake.test}.cpp"
    command = [compiler[0], f"-I{folder / 'csrc'}", *compiler[1:], "-ptx", test, "-o", ptx]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        return False, f"does not compile: {built.stderr}"
    run = [programs / f"{mistake.test}_ptx", *filter(None, [mistake.cases])]
    try:
        ran = subprocess.run(run, capture_output=True, text=True, timeout=200, env={**os.environ, "HN_PTX": str(ptx)})
    except subprocess.TimeoutExpired:
        return True, f"{mistake.test} does not end"
    if ran.returncode == NOT_RUN:
        return False, ran.stderr
    return ran.returncode != 0, f"{mistake.test}: {(ran.stderr.strip().splitlines() or ['passes'])[0][:160]}"


def main() -> int:
    """Make every mistake, two at a time; say what found it, or that nothing did."""
    programs, folder, compiler = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    shutil.rmtree(folder, ignore_errors=True)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda n: find(MISTAKES[n], programs, folder / str(n), compiler), range(len(MISTAKES))))
    for mistake, (found, words) in zip(MISTAKES, results, strict=True):
        print(f"{mistake.what}\n  {'' if found else 'NOT FOUND: '}{words}")
    shutil.rmtree(folder, ignore_errors=True)
    missed = sum(not found for found, _ in results)
    print(f"{len(MISTAKES) - missed} of {len(MISTAKES)} mistakes found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
