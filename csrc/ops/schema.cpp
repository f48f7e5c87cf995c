// schema.cpp: every op's signature: the table of contents of the extension.
//
// selection: int32[4], one row a layer {threshold key, cut, bracket width, cold searches} (csrc/base/rule.cuh).
// bits: the packed mask of a rule, or its flags. step: of a rule that draws.
// rule, source and dtype are the codes of RuleKind, Source and Dtype (csrc/base).
#include "../base/tensor.h"

#define HN_RULE "int rule, Tensor? bits, Tensor? step, int rule_seed"
#define HN_SOURCE "int source, Tensor? stored, Tensor? plane, float scale, int seed, int layer, int redraw"
#define HN_LEVELS                                                                                                    \
  "Tensor start, Tensor weight, Tensor scale, Tensor shift, Tensor taps, int[] levels, float eps, bool first_norm, " \
  "bool lateral"
#define HN_CONV "int[] stride, int[] padding, int[] dilation"

STABLE_TORCH_LIBRARY(hiddennet, m) {
  m.def("scale(Tensor x, float a) -> Tensor");
  m.def("topk_select(Tensor[] scores, int[] k, bool by_value, bool network_wide, Tensor? hint) -> Tensor");
  m.def(
      "topk_select_(Tensor[] scores, int[] k, bool by_value, bool network_wide, bool keep_ties, Tensor(a!) rows, "
      "Tensor(b!)? counts=None) -> ()");
  m.def("topk_counts_bytes(Tensor[] scores, int[] k, bool network_wide) -> int");
  m.def("rule_mask(Tensor? scores, Tensor selection, int[] shape, bool channels_last, " HN_RULE
        ", int layer) -> Tensor");
  m.def("pack_mask(Tensor mask) -> Tensor");
  m.def("unpack_mask(Tensor bits, int[] shape) -> Tensor");
  m.def("encode_mask(Tensor bits, int[] frequencies) -> Tensor");
  m.def("decode_mask(Tensor coded, int[] frequencies, int count) -> Tensor");
  m.def("generate_weight(Tensor(a!) out, int source, bool signs, float scale, int seed, int layer, int redraw) -> ()");
  m.def("generate_signs(Tensor(a!) plane, int n, int seed, int layer, int redraw) -> ()");
  m.def("masked_weight(Tensor? scores, Tensor selection, int[] shape, bool channels_last, " HN_RULE ", " HN_SOURCE
        ", int dtype) -> Tensor");
  m.def(
      "network_weight(Tensor[] scores, Tensor[] selections, Tensor[] bits, Tensor[] steps, Tensor[] parts, "
      "int[] numbers, float[] scales, int[] shapes, int[] dtypes) -> Tensor[]");
  m.def("topk_weight(Tensor scores, int k, bool by_value, Tensor? hint, " HN_SOURCE ", int dtype) -> (Tensor, Tensor)");
  m.def("masked_weight_backward(Tensor grad, Tensor? scores, Tensor selection, bool channels_last, " HN_RULE
        ", " HN_SOURCE ", bool want_scores, bool want_weight) -> (Tensor, Tensor)");
  m.def("masked_conv_forward(Tensor x, Tensor? scores, Tensor selection, int[] shape, bool channels_last, " HN_RULE
        ", " HN_SOURCE ", " HN_CONV ") -> Tensor");
  m.def(
      "masked_conv_input_gradient(Tensor dy, int[] input_shape, Tensor? scores, Tensor selection, int[] shape, "
      "bool channels_last, " HN_RULE ", " HN_SOURCE ", " HN_CONV ") -> Tensor");
  m.def(
      "strike_out_(Tensor[] scores, Tensor(a!)[] flags, int[] counts, bool network_wide, bool by_value, bool invert, "
      "bool exact) -> Tensor");
  m.def("count_flags(Tensor[] flags) -> Tensor");
  m.def(
      "rerandomize_(Tensor(a!)[] weights, Tensor[] scores, Tensor selection, int[] kinds, float[] scales, int seed, "
      "int[] layers, int redraw, int limit, bool by_value, Tensor(b!)[] redraws, float? decay, float? mix) -> ()");
  m.def("redrawn_weight(Tensor redraws, int kind, float scale, int seed, int layer) -> Tensor");
  m.def(
      "score_step_(Tensor(a!)[] scores, Tensor[] grads, Tensor(b!)[] first, Tensor(c!)[] second, Tensor[] flags, "
      "int[] steps, float lr, float weight_decay, float l1, float l2, float low, float high, float momentum, "
      "bool nesterov, float beta1, float beta2, float eps, int[] rules, Tensor[] bits, int[] sources, "
      "Tensor[] parts, float[] scales, int[] draws, Tensor? rate=None, Tensor(d!)? counts=None, Tensor? rows=None, "
      "int[] ranked=[], int[] k=[], bool by_value=False, bool network_wide=False) -> ()");
  m.def(
      "bop_step_(Tensor(a!)[] weights, Tensor[] grads, Tensor(b!)[] averages, Tensor(c!)[] flips, "
      "Tensor(d!)[] total_flips, Tensor[] flags, int[] fresh, float adaptivity_rate, float threshold) -> ()");
  m.def("code_range(Tensor x, bool per_sample) -> Tensor");
  m.def("quantize_codes(Tensor x, Tensor maximum, int bits, bool is_signed, bool channels_last) -> (Tensor, Tensor)");
  m.def("threshold_gradient_(Tensor(a!) grad, Tensor? exact, Tensor? maximum, float threshold, bool sign) -> ()");
  m.def("magnitude_conv(Tensor x, Tensor weight, Tensor bits, " HN_CONV ") -> Tensor");
  m.def(
      "magnitude_conv_backward_(Tensor x, Tensor dy, Tensor weight, Tensor bits, Tensor(a!) scores, bool accumulate, "
      "bool want_dx, " HN_CONV ") -> Tensor");
  m.def("magnitude_conv_slopes(Tensor x, Tensor dy, int[] shape, Tensor places, " HN_CONV ") -> Tensor");
  m.def(
      "norm_relu(Tensor x, Tensor? residual, Tensor? gamma, Tensor? beta, Tensor(a!)? running_mean, "
      "Tensor(b!)? running_var, float momentum, float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "norm_relu_backward(Tensor dy, Tensor x, Tensor? y, Tensor? gamma, Tensor? beta, Tensor mean, Tensor invstd) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("relu_pool(Tensor x) -> (Tensor, Tensor)");
  m.def("relu_pool_backward(Tensor dy, Tensor places, int[] shape) -> Tensor");
  m.def("tile_conv_forward(Tensor x, Tensor weight, " HN_CONV ") -> Tensor");
  m.def("tile_conv_input_gradient(Tensor dy, Tensor weight, int[] input_shape, " HN_CONV ") -> Tensor");
  m.def("channels_last(Tensor x) -> Tensor");
  m.def("tile_instructions(Tensor like) -> int");
  m.def("tile_conv_weight_gradient(Tensor x, Tensor dy, int[] shape, " HN_CONV ") -> Tensor");
  m.def("strike_near_(Tensor[] scores, Tensor(a!)[] flags, int count, float margin) -> (Tensor, Tensor, Tensor)");
  m.def(
      "code_weight_gradient(Tensor input, Tensor gradient, Tensor input_delta, Tensor gradient_delta, int[] "
      "shape, " HN_CONV ", int groups, bool channels_last) -> (Tensor, Tensor)");
  m.def("sparse_conv_forward(Tensor x, Tensor weight, " HN_CONV ") -> Tensor");
  m.def("sparse_conv_input_gradient(Tensor dy, Tensor weight, int[] input_shape, " HN_CONV ") -> Tensor");
  m.def("sparse_conv_weight_gradient(Tensor x, Tensor dy, Tensor weight, " HN_CONV ") -> Tensor");
  m.def("dense_conv_weight_gradient(Tensor x, Tensor dy, int[] weight_shape, " HN_CONV
        ", bool channels_last) -> Tensor");
  m.def("edge_starts(Tensor weight) -> Tensor");
  m.def("pack_edges(Tensor weight, Tensor starts, int n_edges) -> (Tensor, Tensor)");
  m.def("wired_sum(Tensor x, Tensor starts, Tensor sources, Tensor values) -> Tensor");
  m.def("wired_sum_(Tensor(a!) out, Tensor x, Tensor starts, Tensor sources, Tensor values, bool accumulate) -> ()");
  m.def("wired_levels(" HN_LEVELS ", Tensor(a!)? kept) -> Tensor");
  m.def("wired_levels_backward(Tensor gradient, " HN_LEVELS
        ", Tensor kept, Tensor(a!) scratch, bool want_weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("filter_nodes_(Tensor(a!) out, Tensor x, Tensor scale, Tensor shift, Tensor taps, int stride) -> ()");
}
