// code_pack.h: bring a block of codes into the order the tiles read: pairs of neighbouring pixels, channel by channel.
//
// A pair of codes is one 32-bit word, the left pixel in the low half. Padding, odd pixels and channels past the last are
// 0. Codes of more than 9 bits come in two parts, each a pass of its own: low bytes, then what is above them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "code_blocks.h"

namespace hn {
namespace cpu {

enum class Part { kWhole, kLow, kHigh };

template <Part kPart, class T>
HN_INLINE uint32_t code_bits(T code) {
  const int32_t c = int32_t(code);
  return uint32_t(kPart == Part::kWhole ? c : (kPart == Part::kLow ? c & 255 : c >> 8)) & 0xffffu;
}

template <Part kPart, int kCount, class T>
HN_INLINE void pair_body(const T* __restrict__ left, const T* __restrict__ right, int32_t count,
                         uint32_t* __restrict__ to) {
  if (count >= kCount) {
    for (int c = 0; c < kCount; ++c) to[c] = code_bits<kPart>(left[c]) | code_bits<kPart>(right[c]) << 16;
  } else {
    for (int c = 0; c < kCount; ++c) {
      to[c] = c < count ? code_bits<kPart>(left[c]) | code_bits<kPart>(right[c]) << 16 : 0;
    }
  }
}

// What a pixel outside the image holds.
template <class T>
inline const T* no_codes() {
  static constexpr T zeros[4 * kTileRows] = {};
  static_assert(4 * kTileRows >= kLanes, "a vector of codes is read at once");
  return zeros;
}

// The pairs of one row of the input, as one horizontal tap sees them: [row_pairs][kLanes] words. channels: of the group,
// from the vector's first on. row: null outside the image. left: of the row's pixels, those inside it.
template <Part kPart, class T>
HN_INLINE void input_row_body(const T* row, int64_t left, int32_t channels, int32_t first_x, const CodeBlocks* b,
                              uint32_t* to) {
  const T* const none = no_codes<T>();
  const int32_t step = b->s.stride_width;
  const int64_t pixel = b->pixel_in;
  // the output's pixels [first, end) read inside the row
  const int64_t width = row == nullptr ? 0 : std::min<int64_t>(b->s.in_width, left);
  const int32_t first = first_x < 0 ? (-first_x + step - 1) / step : 0;
  const int32_t end =
      width > first_x ? int32_t(std::min<int64_t>(b->s.out_width, (width - 1 - first_x) / step + 1)) : 0;
  const auto any = [&](int32_t q) {
    const T* both[2];
    for (int e = 0; e < 2; ++e) {
      const int32_t o = 2 * q + e;
      both[e] = o >= first && o < end ? row + (int64_t(first_x) + int64_t(o) * step) * pixel : none;
    }
    pair_body<kPart, kLanes>(both[0], both[1], channels, to + int64_t(q) * kLanes);
  };
  int32_t q = 0;
  const int32_t last = channels >= kLanes ? end / 2 : 0;
  for (; q < (first + 1) / 2 && q < b->row_pairs; ++q) any(q);
  if (q < last) {
    const T* from = row + (int64_t(first_x) + int64_t(2) * q * step) * pixel;
    for (; q < last; ++q, from += 2 * step * pixel) {
      pair_body<kPart, kLanes>(from, from + step * pixel, kLanes, to + int64_t(q) * kLanes);
    }
  }
  for (; q < b->row_pairs; ++q) any(q);
}

// One row of up to four tiles of output channels, which share the lines they read; `left` as above.
template <class T>
HN_INLINE void gradient_row_body(const T* row, int64_t left, int32_t channels, const CodeBlocks* b, int64_t tile_words,
                                 uint32_t* to) {
  const T* const none = no_codes<T>();
  for (int32_t q = 0; q < b->row_pairs; ++q, to += kTileRows) {
    const T* both[2];
    for (int e = 0; e < 2; ++e) {
      const int32_t x = 2 * q + e;
      const bool inside = x < b->s.out_width && x < left;
      both[e] = inside ? row + int64_t(x) * b->pixel_out : none;
    }
    for (int32_t tile = 0; tile < 4 && tile * kTileRows < channels; ++tile) {
      pair_body<Part::kWhole, kTileRows>(both[0] + tile * kTileRows, both[1] + tile * kTileRows,
                                         channels - tile * kTileRows, to + tile * tile_words);
    }
  }
}

HN_DISPATCH(input_row_whole, (input_row_body<Part::kWhole>))
HN_DISPATCH(input_row_low, (input_row_body<Part::kLow>))
HN_DISPATCH(input_row_high, (input_row_body<Part::kHigh>))
HN_DISPATCH(gradient_row, gradient_row_body)

template <class T>
inline void input_row(Part part, const T* row, int64_t left, int32_t channels, int32_t first_x, const CodeBlocks* b,
                      uint32_t* to) {
  switch (part) {
    case Part::kWhole: return input_row_whole(row, left, channels, first_x, b, to);
    case Part::kLow: return input_row_low(row, left, channels, first_x, b, to);
    case Part::kHigh: return input_row_high(row, left, channels, first_x, b, to);
  }
}

// Units of work: one segment of one plane of one vector and tap. codes: of the group's first channel.
inline int64_t input_units(const CodeBlocks& b, const DepthBlock& d) {
  return int64_t(b.vectors) * b.taps_x * d.planes * d.images;
}

template <class T>
void pack_input(const T* codes, Part part, const CodeBlocks& b, const DepthBlock& d, int64_t unit, int16_t* packed) {
  const int32_t segment = int32_t(unit % d.images), plane = int32_t(unit / d.images % d.planes);
  const int32_t kx = int32_t(unit / d.images / d.planes % b.taps_x);
  const int32_t v = int32_t(unit / d.images / d.planes / b.taps_x);
  uint32_t* to = reinterpret_cast<uint32_t*>(packed + d.plane_at(b, v, kx, plane, segment));
  const ConvShape& s = b.s;
  const T* const image = codes + int64_t(d.image + segment) * b.in_pixels * b.pixel_in + v * kLanes;
  const int32_t first_x = kx * s.dilation_width - s.padding_width;
  for (int32_t r = 0; r < d.plane_rows; ++r, to += int64_t(b.row_pairs) * kLanes) {
    const int32_t y = (d.row + r) * s.stride_height + plane * s.dilation_height - s.padding_height;
    const bool inside = y >= 0 && y < s.in_height;
    const int64_t pixel = int64_t(y) * s.in_width;
    input_row(part, inside ? image + pixel * b.pixel_in : nullptr, inside ? b.in_pixels - pixel : 0,
              b.in_channels - v * kLanes, first_x, &b, to);
  }
}

// The same where the taps are columns: the words of one pair of pixels, [taps_y * taps_x * channels], zeroed before.
template <Part kPart, class T>
HN_INLINE void gather_pair_body(const T* image, const CodeBlocks* b, int32_t row, int32_t left, uint32_t* words) {
  const ConvShape& s = b->s;
  const int32_t step = s.dilation_width, channels = b->in_channels;
  for (int32_t e = 0; e < 2 && left + e < s.out_width; ++e) {
    const int32_t x0 = (left + e) * s.stride_width - s.padding_width;
    int32_t first = x0 < 0 ? (-x0 + step - 1) / step : 0, end = s.kernel_width;  // horizontal taps inside the image
    while (end > first && x0 + (end - 1) * step >= s.in_width) --end;
    for (int32_t ky = 0; ky < s.kernel_height; ++ky) {
      const int32_t y = row * s.stride_height - s.padding_height + ky * s.dilation_height;
      if (y < 0 || y >= s.in_height) continue;
      const T* const line = image + (int64_t(y) * s.in_width + x0) * b->pixel_in;
      uint32_t* const to = words + int64_t(ky) * s.kernel_width * channels;
      for (int32_t kx = first; kx < end; ++kx) {
        const T* const from = line + int64_t(kx) * step * b->pixel_in;
        for (int32_t c = 0; c < channels; ++c) to[kx * channels + c] |= code_bits<kPart>(from[c]) << (16 * e);
      }
    }
  }
}

// The same where a line of taps is contiguous and inside the image for both pixels: sixteen codes at a time. What lies
// past a line's last word is garbage, and so are the columns past the last, which nobody reads.
template <Part kPart, class T>
HN_INLINE void gather_lines_body(const T* image, const CodeBlocks* b, int32_t row, int32_t left, uint32_t* words) {
  const ConvShape& s = b->s;
  const int32_t x0 = left * s.stride_width - s.padding_width, line_words = s.kernel_width * b->pixel_in;
  for (int32_t ky = 0; ky < s.kernel_height; ++ky, words += line_words) {
    const int32_t y = row * s.stride_height - s.padding_height + ky * s.dilation_height;
    if (y < 0 || y >= s.in_height) {
      std::fill(words, words + line_words, 0u);
      continue;
    }
    const T* const line = image + (int64_t(y) * s.in_width + x0) * b->pixel_in;
    for (int32_t c = 0; c < line_words; c += kLanes) {
      pair_body<kPart, kLanes>(line + c, line + c + s.stride_width * b->pixel_in, kLanes, words + c);
    }
  }
}

// Whether gather_lines may read: all of its codes lie before `end`.
template <class T>
inline bool has_lines(const T* image, const T* end, const CodeBlocks& b, int32_t row, int32_t left) {
  const ConvShape& s = b.s;
  const int32_t x0 = left * s.stride_width - s.padding_width, x1 = x0 + s.stride_width;
  if (b.pixel_in != b.in_channels || s.dilation_width != 1 || left + 1 >= s.out_width || x0 < 0 ||
      x1 + s.kernel_width > s.in_width) {
    return false;
  }
  const int32_t y =
      std::min(s.in_height - 1, row * s.stride_height - s.padding_height + (s.kernel_height - 1) * s.dilation_height);
  const int64_t read = int64_t(s.kernel_width * b.pixel_in + kLanes - 1) / kLanes * kLanes;
  return end - image >= (int64_t(y) * s.in_width + x1) * b.pixel_in + read;
}

HN_DISPATCH(gather_pair_whole, (gather_pair_body<Part::kWhole>))
HN_DISPATCH(gather_pair_low, (gather_pair_body<Part::kLow>))
HN_DISPATCH(gather_pair_high, (gather_pair_body<Part::kHigh>))
HN_DISPATCH(gather_lines_whole, (gather_lines_body<Part::kWhole>))
HN_DISPATCH(gather_lines_low, (gather_lines_body<Part::kLow>))
HN_DISPATCH(gather_lines_high, (gather_lines_body<Part::kHigh>))

template <class T>
inline void gather_pair(Part part, bool lines, const T* image, const CodeBlocks* b, int32_t row, int32_t left,
                        uint32_t* words) {
  switch (part) {
    case Part::kWhole:
      return lines ? gather_lines_whole(image, b, row, left, words) : gather_pair_whole(image, b, row, left, words);
    case Part::kLow:
      return lines ? gather_lines_low(image, b, row, left, words) : gather_pair_low(image, b, row, left, words);
    case Part::kHigh:
      return lines ? gather_lines_high(image, b, row, left, words) : gather_pair_high(image, b, row, left, words);
  }
}

// Units: rows of the output.
inline int64_t gathered_units(const DepthBlock& d) { return int64_t(d.images) * d.rows; }

template <class T>
void gather_input(const T* codes, Part part, const CodeBlocks& b, const DepthBlock& d, int64_t unit, int16_t* packed) {
  const int32_t segment = int32_t(unit / d.rows), r = int32_t(unit % d.rows);
  const T* const image = codes + int64_t(d.image + segment) * b.in_pixels * b.pixel_in;
  const T* const end = codes + int64_t(b.s.batch) * b.in_pixels * b.pixel_in;  // of the first group
  std::vector<uint32_t> words(size_t(b.vectors + 1) * kLanes);
  for (int32_t q = 0; q < b.row_pairs; ++q) {
    const bool lines = has_lines(image, end, b, d.row + r, 2 * q);
    if (!lines) std::fill(words.begin(), words.end(), 0u);
    gather_pair(part, lines, image, &b, d.row + r, 2 * q, words.data());
    for (int32_t v = 0; v < b.vectors; ++v) {
      int16_t* const to = packed + d.plane_at(b, v, 0, 0, segment) + (int64_t(r) * b.row_pairs + q) * 2 * kLanes;
      std::memcpy(to, words.data() + v * kLanes, kLanes * sizeof(uint32_t));
    }
  }
}

// Units: four tiles of one segment.
inline int64_t gradient_units(const CodeBlocks& b, const DepthBlock& d) {
  return int64_t(d.images) * ((b.row_tiles + 3) / 4);
}

template <class T>
void pack_gradient(const T* codes, const CodeBlocks& b, const DepthBlock& d, int64_t unit, int16_t* packed) {
  const int32_t segment = int32_t(unit % d.images), tile = int32_t(unit / d.images) * 4;
  const int64_t words = d.pairs(b) * kTileRows;  // of a segment of a tile
  uint32_t* to = reinterpret_cast<uint32_t*>(packed) + (int64_t(tile) * d.images + segment) * words;
  const T* const image = codes + int64_t(d.image + segment) * b.out_pixels * b.pixel_out + tile * kTileRows;
  for (int32_t r = 0; r < d.rows; ++r, to += int64_t(b.row_pairs) * kTileRows) {
    const int64_t pixel = int64_t(d.row + r) * b.s.out_width;
    gradient_row(image + pixel * b.pixel_out, b.out_pixels - pixel, b.rows - tile * kTileRows, &b, words * d.images,
                 to);
  }
}

}  // namespace cpu
}  // namespace hn
