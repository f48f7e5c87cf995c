// masked_weight_cpu.cpp: the effective weight and its backward on a CPU, a block at a time.
#include "../../base/blocks.h"
#include "../../base/key_avx2.h"
#include "../../base/parallel.h"
#include "masked_weight.h"
#include "signed_cpu.h"

namespace hn {
namespace cpu {
namespace {

HN_INLINE void select_bfloat16_body(const float* weights, const uint32_t* keep, int32_t n, uint16_t* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = uint16_t(bfloat16_bits(weights[e]) & keep[e]);
}

HN_INLINE void select_float16_body(const float* weights, const uint32_t* keep, int32_t n, uint16_t* out) {
  for (int32_t e = 0; e < n; ++e) out[e] = uint16_t(float16_bits(weights[e]) & keep[e]);
}

HN_DISPATCH(select_bfloat16, select_bfloat16_body)
HN_DISPATCH(select_float16, select_float16_body)

void write_selected(const float* weights, const uint32_t* keep, int32_t n, Dtype dtype, void* out, int64_t at) {
  if (dtype == Dtype::kFloat32) {
    select_float32(weights, keep, n, static_cast<float*>(out) + at);
  } else if (dtype == Dtype::kBFloat16) {
    select_bfloat16(weights, keep, n, static_cast<uint16_t*>(out) + at);
  } else {
    select_float16(weights, keep, n, static_cast<uint16_t*>(out) + at);
  }
}

// f(reader, first position, count) over all blocks of a layer.
template <class F>
void for_each_block(const Layout& layout, const F& f) {
  const BlockReader probe(layout);
  const int64_t grain = std::max<int64_t>(1, kParallelGrain / probe.block());
  parallel_for(0, probe.blocks(), grain, [&](int64_t begin, int64_t end) {
    BlockReader reader(layout);
    for (int64_t b = begin; b < end; ++b) f(reader, reader.begin(b), reader.size(b));
  });
}

}  // namespace

void masked_weight(const MaskedWeightParams& p) {
  if (signed_selection(p)) return;
  for_each_block(p.layout, [&](BlockReader& reader, int32_t p0, int32_t n) {
    const float* scores = p.scores == nullptr ? nullptr : p.scores + p0;
    const float* weights = reader.weights(p.source, p0, n);
    const uint32_t* keep = reader.keep(p.rule, scores, p0, n);
    if (p.rule.kind == RuleKind::kScored) {
      float* products = thread_buffer(n);
      product(weights, scores, n, products);
      weights = products;
    }
    if (p.rule.kind == RuleKind::kExpectation) {
      for (int32_t e = 0; e < n; ++e) store_float(p.out, p.dtype, p0 + e, weights[e] * sigmoid(scores[e]));
    } else {
      write_selected(weights, keep, n, p.dtype, p.out, p0);
    }
  });
}

void network_weight(const NetworkWeightParams& p) {
  for (int32_t i = 0; i < p.count; ++i) masked_weight(p.layers[i]);
}

void masked_weight_backward(const MaskedWeightBackwardParams& p) {
  if (signed_gradient(p)) return;
  for_each_block(p.layout, [&](BlockReader& reader, int32_t p0, int32_t n) {
    const float* scores = p.scores == nullptr ? nullptr : p.scores + p0;
    if (p.grad_scores != nullptr) {
      score_gradient(reader, p.rule, p.source, p.grad, p.grad_dtype, scores, p0, n, p.grad_scores + p0);
    }
    if (p.grad_weight != nullptr) {
      const float* grad = read_gradient(p.grad, p.grad_dtype, p0, n, thread_buffer(n));
      float* out = p.grad_weight + p0;
      if (p.rule.kind == RuleKind::kExpectation) {
        for (int32_t e = 0; e < n; ++e) out[e] = grad[e] * sigmoid(scores[e]);
      } else if (p.rule.kind == RuleKind::kScored) {
        product(grad, scores, n, out);
        select_float32(out, reader.keep(p.rule, scores, p0, n), n, out);
      } else {
        select_float32(grad, reader.keep(p.rule, scores, p0, n), n, out);
      }
    }
  });
}

}  // namespace cpu
}  // namespace hn
