// tile_maps.h: the maps of a convolution as tiles see them, and how much of them is held at a time.
#pragma once
#include "tile_pack.h"
#include "tile_positions.h"

namespace hn {
namespace cpu {

constexpr int64_t kNearBytes = 3 << 18;  // what should stay near a core while it is used several times

constexpr int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Images of a side of the convolution: [images][positions][channels].
struct Maps {
  const uint16_t* data;
  int32_t images, positions, channels;

  int32_t image_blocks() const { return int32_t(blocks(images, 32)); }
  int32_t channel_blocks() const { return int32_t(blocks(channels, 32)); }

  Rows rows(int64_t image, int64_t position, int64_t channel) const {
    const int64_t stride = int64_t(positions) * channels;
    return {data + image * stride + position * channels + channel, stride,
            int32_t(std::max<int64_t>(0, images - image)), int32_t(std::max<int64_t>(0, channels - channel))};
  }
};

// Which rows of the one map a row of the other needs, and how many of those rows are kept at a time.
struct RowNeeds {
  std::vector<int32_t> first, last;  // by row; first > last where it needs none

  RowNeeds(const Links& links, int32_t rows, int32_t width, int32_t from_width) : first(rows), last(rows) {
    for (int32_t y = 0; y < rows; ++y) {
      first[y] = INT32_MAX, last[y] = -1;
      for (int64_t i = links.starts[y * width]; i < links.starts[(y + 1) * width]; ++i) {
        const int32_t row = links.links[i].from / from_width;
        first[y] = std::min(first[y], row), last[y] = std::max(last[y], row);
      }
    }
  }

  // Of rows [y, y + n).
  int32_t first_of(int32_t y, int32_t n) const { return *std::min_element(&first[y], &first[y] + n); }
  int32_t last_of(int32_t y, int32_t n) const { return *std::max_element(&last[y], &last[y] + n); }

  // The most rows that n rows in a row need.
  int32_t span(int32_t n) const {
    int32_t most = 1;
    for (int32_t y = 0; y + n <= int32_t(first.size()); ++y) most = std::max(most, last_of(y, n) - first_of(y, n) + 1);
    return most;
  }

  // How many rows to take at a time, so that what they need of `bytes` each stays near.
  int32_t step(int64_t bytes) const {
    int32_t n = 1;
    while (n < int32_t(first.size()) && span(n + 1) * bytes <= kNearBytes) ++n;
    return n;
  }
};

}  // namespace cpu
}  // namespace hn
