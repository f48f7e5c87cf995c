// layout.cuh: where a weight of OIHW index i lies in memory.
//
// Elements are named by their flat OIHW index everywhere (ties, random numbers, packed bits); only memory is addressed
// by physical position. A filter occupies the same range [o*per_filter, (o+1)*per_filter) in both layouts.
#pragma once
#include <cstdint>

#include "macros.h"

namespace hn {

struct Layout {
  int32_t n;           // elements
  int32_t per_filter;  // channels * taps
  int32_t channels;    // input channels (a group's)
  int32_t taps;        // kernel height * width
  bool channels_last;  // OHWI in memory; false: OIHW

  // OIHW index of the element at physical position p.
  HN_HD int32_t logical(int32_t p) const {
    if (!channels_last) return p;
    const int32_t filter = p / per_filter, r = p - filter * per_filter;
    const int32_t tap = r / channels, channel = r - tap * channels;
    return filter * per_filter + channel * taps + tap;
  }

  // Physical position of the element of OIHW index i.
  HN_HD int32_t physical(int32_t i) const {
    if (!channels_last) return i;
    const int32_t filter = i / per_filter, r = i - filter * per_filter;
    const int32_t channel = r / taps, tap = r - channel * taps;
    return filter * per_filter + tap * channels + channel;
  }
};

HN_HD Layout flat_layout(int32_t n) { return {n, n, n, 1, false}; }

}  // namespace hn
