"""NVTX ranges in the domain "hiddennet": what Nsight shows on its timeline. Nothing without the nvtx package."""

import contextlib
import functools
import os

try:
    import nvtx
except ImportError:
    nvtx = None

DOMAIN = "hiddennet"
enabled = nvtx is not None and os.environ.get("HIDDENNET_TRACE", "1") != "0"


# range(name) marks the enclosed code as `name`: a phase of training (data, forward, backward, step, eval) or an op
range = functools.partial(nvtx.annotate, domain=DOMAIN) if enabled else contextlib.nullcontext
