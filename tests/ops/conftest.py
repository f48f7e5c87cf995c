"""measuring: choices among the ways of a convolution that a test makes, in place of a clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hiddennet import tuned
from hiddennet.ops import conv_ways, masked_conv


@pytest.fixture
def measuring(monkeypatch, tmp_path) -> Iterator[dict[str, float]]:
    """Choices made by these times, not by a clock; none from before, and small layers count."""
    times: dict[str, float] = {}
    monkeypatch.setenv("HIDDENNET_PLANS", "auto")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(masked_conv, "MEASURED_FROM", 1)
    monkeypatch.setattr(conv_ways, "_chosen", {})
    monkeypatch.setattr(tuned.Measured, "_own", {})
    monkeypatch.setattr(
        conv_ways, "_measure", lambda direction, conv, names, tensors: {n: times.get(n, 5.0) for n in names}
    )
    monkeypatch.setattr(conv_ways.tile_conv, "instructions", lambda: "amx")  # slow here or not, it computes the same
    yield times
