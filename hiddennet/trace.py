"""NVTX ranges in the domain "hiddennet": what Nsight shows on its timeline. Nothing without the nvtx package."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

try:
    import nvtx
except ImportError:
    nvtx = None

DOMAIN = "hiddennet"
enabled = nvtx is not None and os.environ.get("HIDDENNET_TRACE", "1") != "0"


@contextlib.contextmanager
def range(name: str) -> Iterator[None]:
    """Mark the enclosed code as `name`: a phase of training (data, forward, backward, step, eval) or an op."""
    if not enabled:
        yield
        return
    nvtx.push_range(name, domain=DOMAIN)
    try:
        yield
    finally:
        nvtx.pop_range(domain=DOMAIN)
