"""What nvcc makes of the kernels whose speed hangs on certain instructions: that it has them, and has not others."""

from __future__ import annotations

import re

import pytest

from tests.sass import machine_code

CODES = "code_weight_gradient/code_weight_gradient.cu"
STAGED = {
    "masked_weight/masked_weight.cu": "staged_weight_kernel",
    "generate_weight/generate_weight.cu": "staged_generate_kernel",
    "redrawn_weight/redrawn_weight.cu": "staged_redrawn_kernel",
}
BACKWARD = ("masked_weight/masked_weight.cu", "staged_backward_kernel")
STEPS = {  # kernels of many layers, of which some are staged: part of a name, and their stores of a unit
    ("score_step/score_step.cu", "ScoreRuleE0"): 2,
    ("score_step/score_step.cu", "ScoreRuleE1"): 4,
    ("score_step/score_step.cu", "ScoreRuleE2"): 4,
    ("score_step/score_step.cu", "ScoreRuleE3"): 6,
    ("rerandomize/rerandomize.cu", "rerandomize_kernel"): 3,
}
SCRATCH = r"(LDL|STL)\b"  # local memory: spills


@pytest.fixture(params=["80", "90"])
def kernels(request):
    """kernels(source, part of a name), for each architecture that the extension is built for."""
    reason = machine_code.missing(request.param)
    if reason is not None:
        pytest.skip(reason)

    def found(source: str, name: str = "") -> list[machine_code.Kernel]:
        of = [kernel for kernel in machine_code.kernels(request.param)[source] if name in kernel.name]
        assert of, f"no kernel with {name!r} in its name in {source}"
        return of

    return found


def test_codes_come_in_stages(kernels):
    sums = kernels(CODES, "code_sums_kernel")
    assert len(sums) == 8  # four types of input, two of gradient
    for kernel in sums:
        assert kernel.named(r"LDGSTS\.E\S*\.128"), f"{kernel.name}: no asynchronous copies of 16 bytes"
        waits = [line for line in kernel.named(r"DEPBAR") if line.startswith("DEPBAR.LE SB0, 0x1")]
        assert len(waits) == 1, f"{kernel.name}: expected one wait that leaves a group of copies under way, got {waits}"
        assert kernel.named(r"LDSM\.16\.MT88\.4"), f"{kernel.name}: no transposed matrices from shared memory"
        assert kernel.named(r"IMMA\.16832"), f"{kernel.name}: no products of bytes"


def test_sums_of_codes_are_added_without_atomics(kernels):
    for kernel in kernels(CODES):
        for line in kernel.named(r"(ATOM|RED(G|\.))"):  # REDUX is of a warp
            word = line.split()[0]
            assert "MAX" in word and "64" not in word, f"{kernel.name}: {line}"
    for kernel in kernels(CODES, "code_sums_kernel"):
        assert kernel.named(r"ST(G)?\.E\S*\.128"), f"{kernel.name}: sums are not written 16 bytes at a time"
    (slots,) = kernels(CODES, "add_slots_kernel")
    assert len(slots.named(r"LDG\.E\S*\.128")) >= 4, "fewer than four slots are read at once"


@pytest.mark.parametrize(("source", "name"), [*STAGED.items(), BACKWARD])
def test_drawn_weights_are_stored_16_bytes_at_a_time(kernels, source, name):
    (kernel,) = kernels(source, name)
    stores = kernel.named(r"STG")
    assert stores
    assert all(".128" in line.split()[0] for line in stores), stores
    assert kernel.named(r"STS\.128"), "numbers are not staged 16 bytes at a time"
    assert kernel.named(r"BAR\.SYNC"), "no barrier between those who make the numbers and those who take them"


@pytest.mark.parametrize(("source", "name"), STEPS)
def test_a_step_on_staged_layers_reads_and_writes_16_bytes_at_a_time(kernels, source, name):
    stores = STEPS[source, name]
    for kernel in kernels(source, name):
        words = [line.split()[0] for line in kernel.code]
        staged = next((at for at, word in enumerate(words) if word.startswith("STS.128")), None)
        assert staged is not None, f"{kernel.name}: numbers are not staged 16 bytes at a time"
        barrier = next(at for at in range(staged, len(words)) if words[at].startswith("BAR.SYNC"))
        written = [at for at in range(barrier, len(words)) if words[at].startswith("STG")][:stores]
        assert len(written) == stores
        assert all(".128" in words[at] for at in written), [kernel.code[at] for at in written]
        read = [word for word in words[barrier : written[-1]] if re.match(r"LDG\.E(\.CONSTANT)?$", word)]
        assert len(read) <= 1, f"{kernel.name}: words are read one by one"  # the rate is one


@pytest.mark.parametrize(
    "source", [CODES, "masked_weight/network_weight.cu", *STAGED, *sorted({source for source, _ in STEPS})]
)
def test_nothing_is_spilled(kernels, source):
    for kernel in kernels(source):
        spilled = kernel.named(SCRATCH)
        assert not spilled, f"{kernel.name}: {spilled}"


def test_the_disassembly_is_read(kernels):
    for kernel in kernels(CODES):
        assert len(kernel.code) > 50
        assert kernel.named(r"EXIT"), f"{kernel.name}: no end"
        assert kernel.named(r"S2R|S2UR"), f"{kernel.name}: a thread does not ask who it is"
