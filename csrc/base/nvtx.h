// nvtx.h: HN_RANGE("name") marks the enclosing scope in Nsight's timeline, domain "hiddennet"; empty without the header.
#pragma once

#if defined(HN_NVTX) && __has_include(<nvtx3/nvtx3.hpp>)
#include <nvtx3/nvtx3.hpp>

namespace hn {
struct NvtxDomain {
  static constexpr char const* name{"hiddennet"};
};
}  // namespace hn

#define HN_RANGE(label) ::nvtx3::scoped_range_in<::hn::NvtxDomain> hn_range_(label)
#else
#define HN_RANGE(label) static_cast<void>(0)
#endif
