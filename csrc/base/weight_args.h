// weight_args.h: turn the ops' flat argument lists into a Rule and a WeightSource, with the checks both need.
//
// A rule travels as (rule, selection, bits, step, rule_seed), a source as (source, stored, plane, scale, seed, layer,
// redraw). The codes are the enums of rule.cuh and source.cuh.
#pragma once
#include "rule.cuh"
#include "source.cuh"
#include "tensor.h"

namespace hn {

inline Draw make_draw(int64_t seed, int64_t layer, int64_t redraw) {
  return {uint32_t(seed), uint32_t(uint64_t(seed) >> 32), uint32_t(layer), uint32_t(redraw)};
}

inline int64_t plane_bytes(int64_t n) { return (n + 7) / 8; }

// An optional tensor that this rule or source needs: there, of this type and size, dense, on the device.
inline void check_part(const char* op, const char* name, const OptionalTensor& t, ScalarType type, int64_t elements,
                       const Tensor& like) {
  HN_CHECK(t.has_value() && t->defined(), op, ": expected ", name, " for this rule or source, got none");
  check_type(op, name, *t, type);
  HN_CHECK(t->numel() == elements, op, ": expected ", name, " of ", elements, " elements, got ", t->numel());
  check_same_device(op, name, *t, like);
}

// A float32 tensor that lies as `like`, whose layout this is, does.
inline float* floats_beside(const char* op, const char* name, const Tensor& t, const Layout& layout,
                            const Tensor& like) {
  check_part(op, name, t, ScalarType::Float, layout.n, like);
  check_dense(op, name, t, layout.channels_last);
  return static_cast<float*>(t.data_ptr());
}

// The i-th of a list of packed planes; null where the list or that plane is empty.
inline const uint8_t* flags_beside(const char* op, const std::vector<Tensor>& flags, size_t i, const Layout& layout,
                                   const Tensor& like) {
  if (flags.empty() || flags[i].numel() == 0) return nullptr;
  check_part(op, "flags", flags[i], ScalarType::Byte, plane_bytes(layout.n), like);
  check_dense(op, "flags", flags[i], false);
  return static_cast<const uint8_t*>(flags[i].data_ptr());
}

struct RuleArgs {
  int64_t kind;
  const Tensor& selection;
  const OptionalTensor& bits;
  const OptionalTensor& step;
  int64_t seed;
};

// among: which row of the selection is this layer's, where it has one for each of several; -1: it is a single row.
inline Rule make_rule(const char* op, const RuleArgs& a, int64_t n, int64_t layer, int64_t among = -1) {
  HN_CHECK(a.kind >= 0 && a.kind <= int64_t(RuleKind::kScored), op, ": expected a rule code 0..7, got ", a.kind);
  const RuleKind kind = RuleKind(a.kind);
  if (among < 0) {
    check_type(op, "selection", a.selection, ScalarType::Int);
    HN_CHECK(a.selection.numel() == 4 && a.selection.is_contiguous(), op,
             ": expected selection to be one row of 4 int32, got ", a.selection.numel(), " elements");
  }
  if (kind == RuleKind::kBits || has_flags(kind)) {
    check_part(op, "bits", a.bits, ScalarType::Byte, plane_bytes(n), a.selection);
    check_dense(op, "bits", *a.bits, false);
  }
  const bool draws = kind == RuleKind::kRounded && a.step.has_value() && a.step->defined();
  if (kind == RuleKind::kSampled || draws) check_part(op, "step", a.step, ScalarType::Long, 1, a.selection);
  const Selection* rows = static_cast<const Selection*>(a.selection.data_ptr());
  return {kind, rows + std::max<int64_t>(among, 0), pointer_or_null<const uint8_t>(a.bits),
          pointer_or_null<const int64_t>(a.step), make_draw(a.seed, layer, 0)};
}

inline bool reads_scores(RuleKind kind) { return kind != RuleKind::kAll && kind != RuleKind::kBits; }

struct SourceArgs {
  int64_t kind;
  const OptionalTensor& stored;
  const OptionalTensor& plane;
  double scale;
  int64_t seed, layer, redraw;
};

inline WeightSource make_source(const char* op, const SourceArgs& a, int64_t n, bool channels_last,
                                const Tensor& like) {
  HN_CHECK(a.kind >= 0 && a.kind <= kLastSource, op, ": expected a source code 0..", kLastSource, ", got ", a.kind);
  const Source kind = Source(a.kind);
  if (kind == Source::kStored) {
    check_part(op, "stored", a.stored, ScalarType::Float, n, like);
    check_dense(op, "stored", *a.stored, channels_last);
  }
  if (kind == Source::kSigns) {
    check_part(op, "plane", a.plane, ScalarType::Byte, plane_bytes(n), like);
    check_dense(op, "plane", *a.plane, false);
  }
  return {kind, pointer_or_null<const float>(a.stored), pointer_or_null<const uint8_t>(a.plane), float(a.scale),
          make_draw(a.seed, a.layer, a.redraw)};
}

// The scores a rule reads: float32, of the weight's shape, dense in its layout. Null for rules that read none.
inline const float* make_scores(const char* op, const OptionalTensor& scores, RuleKind kind, const Sizes& shape,
                                bool channels_last, const Tensor& like) {
  if (!reads_scores(kind)) return nullptr;
  check_part(op, "scores", scores, ScalarType::Float, elements_of(shape), like);
  check_dense(op, "scores", *scores, channels_last);
  return static_cast<const float*>(scores->data_ptr());
}

}  // namespace hn
