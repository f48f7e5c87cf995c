"""wired_levels: no worse than torch, forward and backward; the same bits on any number of threads; bad input."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import torch

from hiddennet.ops.wired_levels import Levels, Rooms, wired_levels
from tests import reference
from tests.checks import assert_equal

GRAPHS = {  # nodes, images, levels
    "two levels": (9, 3, Levels(((0, 4, 0, 0, 0), (4, 5, 0, 4, 0)))),
    "static": (70, 6, Levels(((0, 5, 0, 0, 0), (5, 33, 0, 5, 0), (38, 19, 0, 38, 0), (57, 13, 0, 57, 0)))),
    "lateral": (
        61,
        5,
        Levels(((0, 7, 0, 0, 0), (7, 20, 0, 7, 0), (27, 34, 0, 27, 0), (50, 11, 27, 34, 27)), lateral=True),
    ),
    "steps": (
        37,
        9,
        Levels(
            ((0, 6, 0, 0, 0), (0, 37, 0, 6, 0), (0, 37, 0, 37, 6), (0, 37, 0, 37, 43), (26, 11, 0, 37, 80)),
            first_norm=False,
        ),
    ),
    "more columns than are turned at once": (430, 1, Levels(((0, 425, 0, 0, 0), (425, 5, 0, 425, 0)))),
    "one image": (12, 1, Levels(((0, 4, 0, 0, 0), (4, 8, 0, 4, 0), (9, 3, 4, 8, 4)), eps=0.1)),
}
NAMES = ("start", "weight", "scale", "shift", "taps")


def make(name: str, density: float = 0.3) -> tuple[list[torch.Tensor], Levels]:
    nodes, images, levels = GRAPHS[name]
    weight = torch.randn(nodes, nodes) * (torch.rand(nodes, nodes) < density)
    start = torch.randn(images, levels.of[0][1], 8, 8) * 3 + 1
    given = [start, weight, torch.randn(nodes), torch.randn(nodes) * 0.3, torch.randn(nodes, 1, 3, 3) / 3]
    return [t.requires_grad_() for t in given], levels


def run(function, given, levels, dtype=torch.float32, **options) -> dict[str, torch.Tensor]:
    """What comes out, and all gradients of a sum of it with fixed factors."""
    given = [t.detach().to(dtype).requires_grad_() for t in given]
    out = function(*given, levels, **options)
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    return {"out": out, **dict(zip(NAMES, torch.autograd.grad((out * factors).sum(), given), strict=True))}


def assert_no_worse_than(got, plain, exact, what: str) -> None:
    """The error's norm at most twice torch's: a single number behind many norms and rectifiers says little."""
    error, torchs = (float((t.double() - exact).norm()) for t in (got, plain))
    assert error <= max(2 * torchs, 1e-6 * float(exact.norm())), f"{what}: error {error:.3g}, torch's {torchs:.3g}"


def test_no_images():
    levels = GRAPHS["static"][2]
    given = [torch.randn(0, 5, 8, 8), *make("static")[0][1:]]
    found = run(wired_levels, given, levels)
    assert found["out"].shape == (0, 13, 8, 8)
    assert not any(bool(gradient.any()) for gradient in found.values())


@pytest.mark.parametrize("name", GRAPHS)
def test_no_worse_than_torch(name):
    given, levels = make(name)
    got = run(wired_levels, given, levels)
    plain, exact = (run(reference.wired_levels, given, levels, dtype) for dtype in (torch.float32, torch.float64))
    for part in got:
        assert got[part].shape == exact[part].shape
        assert_no_worse_than(got[part], plain[part], exact[part], part)


def test_without_edges_all_is_zero_but_what_positions_would_have_learned():
    given, levels = make("static", density=0.0)
    got, want = run(wired_levels, given, levels), run(reference.wired_levels, given, levels, torch.float64)
    assert not got["out"].any() and not got["start"].any() and not got["taps"].any()
    assert got["weight"][57:, :57].any()
    torch.testing.assert_close(got["weight"].double(), want["weight"], rtol=1e-5, atol=1e-4)
    assert not got["weight"][:, 57:].any()  # read by nobody


@pytest.mark.parametrize("name", ["static", "lateral", "steps"])
def test_evaluation_is_the_same_to_the_bit(name):
    given, levels = make(name)
    want = wired_levels(*given, levels)
    with torch.no_grad():
        assert_equal(wired_levels(*given, levels), want)


def test_any_number_of_threads_gives_the_same_bits():
    given, levels = make("steps")
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(run(wired_levels, given, levels))
    torch.set_num_threads(threads)
    for other in found[1:]:
        for part in other:
            assert_equal(other[part], found[0][part], part)


def test_memory_is_used_again_by_who_comes_next_alone():
    (given, levels), rooms = make("steps"), Rooms()
    other = [t.detach().flip(0).clone().requires_grad_() for t in given]
    want = [run(wired_levels, g, levels) for g in (given, other)]
    outs = [wired_levels(*g, levels, rooms) for g in (given, other)]  # both before either goes back
    factors = torch.randn(outs[0].shape, generator=torch.Generator().manual_seed(3))
    for out, g, w in zip(outs, (given, other), want, strict=True):
        for _ in range(2):
            found = torch.autograd.grad((out * factors).sum(), g, retain_graph=True)
            for name, gradient in zip(NAMES, found, strict=True):
                assert_equal(gradient, w[name], name)
    kept = next(out.grad_fn for out in outs).kept.floats.data_ptr()
    del outs, out, found
    gc.collect()
    fewer = [given[0][:3], *given[1:]]
    again = wired_levels(*fewer, levels, rooms)
    assert again.grad_fn.kept.floats.data_ptr() == kept
    assert_equal(again, wired_levels(*fewer, levels))


def test_only_what_is_asked_for_gets_a_gradient():
    given, levels = make("static")
    want = run(wired_levels, given, levels)
    taps = given[4].detach().requires_grad_()
    out = wired_levels(*(t.detach() for t in given[:4]), taps, levels)
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad((out * factors).sum(), (taps,))
    assert_equal(found, want["taps"])


def test_nan_stays_nan():
    given, levels = make("static")
    with torch.no_grad():
        given[0][1, 0, 3, 4] = float("nan")
        out = wired_levels(*given, levels)
        want = reference.wired_levels(*given, levels)
    assert bool(out[1].isnan().any()) and torch.equal(out.isnan(), want.isnan())


ISA = """
import sys, torch
from tests.ops.test_wired_levels import make, run, wired_levels
torch.manual_seed(0)
torch.save([run(wired_levels, *make(name)) for name in ("static", "lateral", "steps")], sys.argv[1])
"""


def test_every_instruction_set(tmp_path):
    found = {}
    for isa in ("", "avx512", "avx2", "scalar"):
        environment = {**os.environ, "HIDDENNET_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
        path = tmp_path / f"results {isa}.pt"
        code = [sys.executable, "-c", ISA, str(path)]
        done = subprocess.run(code, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[isa] = torch.load(path)
    for i, name in enumerate(("static", "lateral", "steps")):
        if i == 0:
            torch.manual_seed(0)
        given, levels = make(name)
        exact = run(reference.wired_levels, given, levels, torch.float64)
        plain = run(reference.wired_levels, given, levels)
        for isa, results in found.items():
            for part, want in exact.items():
                assert_no_worse_than(results[i][part], plain[part], want, f"{isa} {name} {part}")
                if part in ("out", "start"):  # the same roundings in the same order
                    assert_equal(results[i][part], found["scalar"][i][part], f"{isa or 'all'} {name} {part}")


def test_bad_input_is_refused_with_a_sentence():
    given, levels = make("static")
    given = [t.detach() for t in given]

    def refused(message: str, at: int | None = None, value=None, of=levels, error=RuntimeError) -> None:
        taken = [value if i == at else t for i, t in enumerate(given)]
        with pytest.raises(error, match=message):
            wired_levels(*taken, of)

    refused("expected start of dtype float32, got float64", 0, given[0].double(), error=TypeError)
    refused("expected start of another shape", 0, torch.randn(6, 5, 7, 7))
    refused("expected start of another shape", 0, torch.randn(6, 4, 8, 8))
    refused("expected start of 4 dimensions, got 2", 0, torch.randn(6, 5))
    refused("expected a weight of 2 dimensions, got 1", 1, torch.randn(70))
    refused("expected weight of another shape", 1, torch.randn(70, 69))
    refused("expected taps of another shape", 4, torch.randn(70, 3, 3))
    refused("at least two levels", of=Levels(((0, 5, 0, 0, 0),)))
    refused("levels of the weight's 70 rows", of=Levels(((0, 5, 0, 0, 0), (60, 11, 0, 5, 0))))
    refused("read what levels before them send", of=Levels(((0, 5, 0, 0, 0), (5, 3, 0, 6, 0))))
    refused("read what levels before them send", of=Levels(((0, 5, 0, 0, 0), (5, 3, 0, 5, -1))))
    refused("at least three levels", of=Levels(((0, 5, 0, 0, 0), (5, 3, 0, 5, 0)), lateral=True))
    with pytest.raises(TypeError, match="expected scale to be a Tensor, got NoneType"):
        wired_levels(given[0], given[1], None, given[3], given[4], levels)


def test_opcheck():
    given, levels = make("lateral")
    given = [t.detach() for t in given]
    options = levels.numbers(), levels.eps, levels.first_norm, levels.lateral
    room, scratch = levels.room(len(given[0]), len(given[1]))
    kept = torch.zeros(room)
    op = torch.ops.hiddennet
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(op.wired_levels.default, (*given, *options, kept), test_utils=tests)
    out = op.wired_levels(*given, *options, kept)
    arguments = (torch.randn_like(out), *given, *options, kept, torch.zeros(scratch), True)
    torch.library.opcheck(op.wired_levels_backward.default, arguments, test_utils=tests)
