// tensor.h: every torch name the host code uses, through the stable ABI. The one place to change if that ABI moves.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "check.h"
#include "dtype.h"
#include "layout.cuh"

namespace hn {

using torch::stable::Tensor;
using ScalarType = torch::headeronly::ScalarType;
using MemoryFormat = torch::headeronly::MemoryFormat;
using OptionalTensor = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

constexpr int64_t kMaxElements = (int64_t(1) << 31) - 4096;  // 32-bit indices, with room to round up

inline ScalarType scalar_type_of(Dtype t) {
  return t == Dtype::kFloat32 ? ScalarType::Float : (t == Dtype::kBFloat16 ? ScalarType::BFloat16 : ScalarType::Half);
}

inline Dtype dtype_of_code(const char* op, int64_t code) {
  HN_CHECK(code >= 0 && code <= 2, op, ": expected a dtype code 0 (float32), 1 (bfloat16) or 2 (float16), got ", code);
  return Dtype(code);
}

inline Dtype dtype_of(const char* op, const Tensor& t) {
  const ScalarType s = t.scalar_type();
  HN_CHECK(s == ScalarType::Float || s == ScalarType::BFloat16 || s == ScalarType::Half, op,
           ": expected float32, bfloat16 or float16, got scalar type ", int(s));
  return s == ScalarType::Float ? Dtype::kFloat32 : (s == ScalarType::BFloat16 ? Dtype::kBFloat16 : Dtype::kFloat16);
}

inline Sizes sizes_of(const Tensor& t) {
  Sizes s(size_t(t.dim()));
  for (size_t d = 0; d < s.size(); ++d) s[d] = t.size(int64_t(d));
  return s;
}

inline int64_t elements_of(const Sizes& shape) {
  int64_t n = 1;
  for (const int64_t s : shape) n *= s;
  return n;
}

// Layout of a weight of this shape; channels_last only means something in 4 dimensions.
inline Layout layout_of(const char* op, const Sizes& shape, bool channels_last) {
  int64_t n = 1;
  for (const int64_t s : shape) {
    HN_CHECK(s >= 0 && (s == 0 || n <= kMaxElements / s), op, ": expected fewer than 2^31 elements");
    n *= s;
  }
  if (!channels_last) return flat_layout(int32_t(n));
  HN_CHECK(shape.size() == 4, op, ": expected 4 dimensions for channels_last, got ", shape.size());
  return {int32_t(n), int32_t(shape[1] * shape[2] * shape[3]), int32_t(shape[1]), int32_t(shape[2] * shape[3]), true};
}

inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4) return false;
  const int64_t c = t.size(1), h = t.size(2), w = t.size(3);
  return (c == 1 || t.stride(1) == 1) && (w == 1 || t.stride(3) == c) && (h == 1 || t.stride(2) == c * w) &&
         (t.size(0) == 1 || t.stride(0) == c * h * w);
}

// Refuses a tensor whose memory is not dense in the wanted layout.
inline void check_dense(const char* op, const char* name, const Tensor& t, bool channels_last) {
  HN_CHECK(channels_last ? is_channels_last(t) : t.is_contiguous(), op, ": expected ", name,
           channels_last ? " dense in channels_last" : " contiguous", ", got other strides; call .contiguous() first");
}

inline void check_type(const char* op, const char* name, const Tensor& t, ScalarType want) {
  HN_CHECK(t.scalar_type() == want, op, ": expected ", name, " of scalar type ", int(want), ", got ",
           int(t.scalar_type()));
}

inline void check_same_device(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  HN_CHECK(t.is_cuda() == like.is_cuda() && t.get_device_index() == like.get_device_index(), op, ": expected ", name,
           " on the device of the other tensors");
}

// Past the dispatcher, which takes longer than to allocate. channels_last: of 4 dimensions.
inline Tensor empty_on(const Sizes& shape, ScalarType type, const Tensor& like, bool channels_last = false) {
  Sizes strides(shape.size());
  int64_t step = 1;
  const auto set = [&](size_t d, int64_t size) {
    strides[d] = step;
    step *= size;
  };
  if (channels_last) {
    for (const size_t d : {1, 3, 2, 0}) set(d, shape[d]);
  } else {
    for (size_t d = shape.size(); d-- > 0;) set(d, std::max<int64_t>(shape[d], 1));
  }
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      int64_t(shape.size()), shape.data(), strides.data(), int32_t(type),
      like.is_cuda() ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu(), like.get_device_index(), &made));
  return Tensor(made);
}

template <class T>
T* pointer_or_null(const OptionalTensor& t) {
  return t.has_value() && t->defined() ? static_cast<T*>(t->data_ptr()) : nullptr;
}

}  // namespace hn
