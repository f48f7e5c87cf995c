"""What a found network is made of: kept and alive weights, multiply-adds, layer by layer."""

from hiddennet.analysis.layers import LayerReport, TrainingCost, layer_report, table, total, training_cost
from hiddennet.analysis.wirings import WiringReport, dead_nodes, wiring_report

__all__ = [
    "LayerReport",
    "TrainingCost",
    "WiringReport",
    "dead_nodes",
    "layer_report",
    "table",
    "total",
    "training_cost",
    "wiring_report",
]
