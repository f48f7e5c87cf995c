"""The ops: exact selection, generated weights, masked weights and layers, packed masks. One op or one family a file."""

from hiddennet.ops.bop_step import bop_step_
from hiddennet.ops.channels_last import channels_last
from hiddennet.ops.checked_weight import masked_conv2d, masked_linear, masked_weight, topk_weight
from hiddennet.ops.code_gradient import PSGConfig
from hiddennet.ops.code_weight_gradient import code_weight_gradient
from hiddennet.ops.dense_weight_gradient import dense_conv_weight_gradient
from hiddennet.ops.filter_nodes import filter_nodes_
from hiddennet.ops.generate_weight import WeightSource, generate_weight
from hiddennet.ops.inits import INITS, Fan, InitScale, init_scale
from hiddennet.ops.magnitude_conv import magnitude_conv, magnitude_conv_backward_, magnitude_conv_slopes
from hiddennet.ops.mask import Mask
from hiddennet.ops.mask_code import decode_mask, encode_mask
from hiddennet.ops.masked_conv import PLANS, default_plan
from hiddennet.ops.norm_relu import norm_relu
from hiddennet.ops.pack_mask import pack_mask, unpack_mask
from hiddennet.ops.psg import psg_conv2d, psg_linear
from hiddennet.ops.quantize import quantize, quantize_range
from hiddennet.ops.relu_pool import relu_pool
from hiddennet.ops.rerandomize import MAX_NOTED_REDRAW, redrawn_weight, rerandomize_
from hiddennet.ops.scale import scale
from hiddennet.ops.score_step import score_step_
from hiddennet.ops.sparse_conv import (
    sparse_conv_forward,
    sparse_conv_input_gradient,
    sparse_conv_weight_gradient,
)
from hiddennet.ops.strike_out import count_flags, strike_near_, strike_out_
from hiddennet.ops.tile_conv import tile_conv_forward, tile_conv_input_gradient, tile_conv_weight_gradient
from hiddennet.ops.topk_mask import rule_mask, topk_mask, topk_mask_global, topk_select
from hiddennet.ops.wired_levels import Levels, wired_levels
from hiddennet.ops.wired_sum import WIRED_PLANS, Edges, default_wired_plan, pack_edges, wired_sum, wired_sum_

__all__ = [
    "INITS",
    "MAX_NOTED_REDRAW",
    "PLANS",
    "WIRED_PLANS",
    "Edges",
    "Fan",
    "InitScale",
    "Levels",
    "Mask",
    "PSGConfig",
    "WeightSource",
    "bop_step_",
    "channels_last",
    "code_weight_gradient",
    "count_flags",
    "decode_mask",
    "default_plan",
    "default_wired_plan",
    "dense_conv_weight_gradient",
    "encode_mask",
    "filter_nodes_",
    "generate_weight",
    "init_scale",
    "magnitude_conv",
    "magnitude_conv_backward_",
    "magnitude_conv_slopes",
    "masked_conv2d",
    "masked_linear",
    "masked_weight",
    "norm_relu",
    "pack_edges",
    "pack_mask",
    "psg_conv2d",
    "psg_linear",
    "quantize",
    "quantize_range",
    "redrawn_weight",
    "relu_pool",
    "rerandomize_",
    "rule_mask",
    "scale",
    "score_step_",
    "sparse_conv_forward",
    "sparse_conv_input_gradient",
    "sparse_conv_weight_gradient",
    "strike_near_",
    "strike_out_",
    "tile_conv_forward",
    "tile_conv_input_gradient",
    "tile_conv_weight_gradient",
    "topk_mask",
    "topk_mask_global",
    "topk_select",
    "topk_weight",
    "unpack_mask",
    "wired_levels",
    "wired_sum",
    "wired_sum_",
]
