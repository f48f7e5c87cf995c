"""For a walk through bench/gpu_check.sh on the runtime that runs nothing: benchmarks that compare nothing, for kernels
compute nothing. On PYTHONPATH of the walk alone; every Python process of it begins here."""

from __future__ import annotations

import sys
from contextlib import suppress


def _prepare() -> None:
    sys.path.insert(0, "")
    import torch

    from bench import harness, nets
    from tests.cuda_host import fakes

    measure = harness.measure
    harness.same = lambda *_, **__: None

    def unchecked(works, *, check=None, **rest):
        with suppress(Exception):  # it may note something on its way
            if check is not None:
                check()
        return measure(works, check=None, **rest)

    harness.measure = unchecked
    nets.untie = lambda _: None
    torch.library.kept_for_the_walk = fakes.install()


if any(
    word == "-m" and name.startswith("bench.") for word, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
):
    _prepare()
