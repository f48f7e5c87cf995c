"""Pruning at initialisation: masks from magnitudes, chance, SNIP, GraSP or SynFlow, for any model of torch's layers.

prune() finds the masks, report() counts what they leave, hide() makes layers of them that any optimiser trains.
"""

from hiddennet.pruning.loop import METHODS
from hiddennet.pruning.report import MaskReport, report, table
from hiddennet.pruning.run import Step, prune, steps
from hiddennet.pruning.schedule import SCHEDULES, densities, shot_densities
from hiddennet.pruning.sparse import hide

__all__ = [
    "METHODS",
    "SCHEDULES",
    "MaskReport",
    "Step",
    "densities",
    "hide",
    "prune",
    "report",
    "shot_densities",
    "steps",
    "table",
]
