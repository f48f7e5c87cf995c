"""The oracles: every op in plain PyTorch, the same meaning, no cleverness. Tests hold the fast code against these."""

from tests.reference import psg
from tests.reference.bop_step import bop_step
from tests.reference.code_weight_gradient import code_sums, code_weight_gradient
from tests.reference.filter_nodes import filter_nodes
from tests.reference.magnitude_conv import magnitude_conv, magnitude_conv_backward
from tests.reference.masked_weight import masked_weight, masked_weight_backward, rule_mask
from tests.reference.quantize import code_range, quantize_codes, threshold_gradient
from tests.reference.random import bernoulli_logits, bernoulli_units, generate, laplaces, normals, signs, uniforms
from tests.reference.redraw import picked, redrawn_weight, rerandomize
from tests.reference.score_step import score_step
from tests.reference.sparse_conv import (
    dense_conv_weight_gradient,
    sparse_conv_forward,
    sparse_conv_input_gradient,
    sparse_conv_weight_gradient,
)
from tests.reference.strike_near import strike_near
from tests.reference.strike_out import strike_out
from tests.reference.topk import (
    pack_mask,
    score_key,
    selection_mask,
    topk_mask,
    topk_mask_global,
    unpack_mask,
)
from tests.reference.wired_levels import wired_levels
from tests.reference.wired_sum import dense_weight, wired_sum

__all__ = [
    "bernoulli_logits",
    "bernoulli_units",
    "bop_step",
    "code_range",
    "code_sums",
    "code_weight_gradient",
    "dense_conv_weight_gradient",
    "dense_weight",
    "filter_nodes",
    "generate",
    "laplaces",
    "magnitude_conv",
    "magnitude_conv_backward",
    "masked_weight",
    "masked_weight_backward",
    "normals",
    "pack_mask",
    "picked",
    "psg",
    "quantize_codes",
    "redrawn_weight",
    "rerandomize",
    "rule_mask",
    "score_key",
    "score_step",
    "selection_mask",
    "signs",
    "sparse_conv_forward",
    "sparse_conv_input_gradient",
    "sparse_conv_weight_gradient",
    "strike_near",
    "strike_out",
    "threshold_gradient",
    "topk_mask",
    "topk_mask_global",
    "uniforms",
    "unpack_mask",
    "wired_levels",
    "wired_sum",
]
