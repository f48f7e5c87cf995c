"""A config may name every initialisation that the generator knows, and scale the fans of the same ones."""

from __future__ import annotations

from typing import get_args

import pytest

from hiddennet import ops
from hiddennet.methods.base import FAN_SCALED, Init


def test_configs_name_what_there_is():
    assert get_args(Init) == ops.INITS


@pytest.mark.parametrize("init", ops.INITS)
def test_scaled_fans(init):
    if init in FAN_SCALED:
        full, half = (ops.init_scale((8, 4), init, density=d) for d in (1.0, 0.5))
        assert half == (full.kind, pytest.approx(full.scale * 2**0.5))
    else:
        with pytest.raises(ValueError, match="no scale_fan"):
            ops.init_scale((8, 4), init, density=0.5)
