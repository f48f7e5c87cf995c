"""Pruning at initialisation: masks from magnitudes, chance, SNIP, GraSP or SynFlow, for any model of torch's layers.

prune() finds the masks, hide() makes layers of them that any optimiser trains; analysis.layer_report counts those.
"""

from hiddennet.pruning.loop import METHODS
from hiddennet.pruning.run import Step, hide, prune, steps
from hiddennet.pruning.selection import SCHEDULES, densities

__all__ = [
    "METHODS",
    "SCHEDULES",
    "Step",
    "densities",
    "hide",
    "prune",
    "steps",
]
