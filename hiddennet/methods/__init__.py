"""The methods by name: one paper or family a file. A new one is a file here and a line below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiddennet.methods.base import Method, MethodSection
from hiddennet.methods.dense import Dense
from hiddennet.methods.dnw import Dnw
from hiddennet.methods.edge_popup import EdgePopup
from hiddennet.methods.fine_tune import FineTune
from hiddennet.methods.gem_miner import GemMiner
from hiddennet.methods.global_edge_popup import GlobalEdgePopup
from hiddennet.methods.hc import Hc
from hiddennet.methods.imp import Imp
from hiddennet.methods.iterand import IteRand
from hiddennet.methods.magnitude_topk import MagnitudeTopK
from hiddennet.methods.peek_a_boo import PeekABoo
from hiddennet.methods.prune_at_init import PruneAtInit
from hiddennet.methods.random_mask import RandomMask
from hiddennet.methods.sampled import SampledMask
from hiddennet.methods.smart_ratio import SmartRatio

if TYPE_CHECKING:
    from hiddennet.config import Config

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Dense,
        RandomMask,
        EdgePopup,
        IteRand,
        GemMiner,
        Hc,
        GlobalEdgePopup,
        Imp,
        SmartRatio,
        SampledMask,
        PruneAtInit,
        PeekABoo,
        FineTune,
        MagnitudeTopK,
        Dnw,
    )
}

__all__ = ["METHODS", "Method", "MethodSection", "create"]


def create(config: Config) -> Method:
    """The method that the config names."""
    return METHODS[config.method.name](config)
