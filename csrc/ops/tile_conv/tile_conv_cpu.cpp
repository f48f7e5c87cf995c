// tile_conv_cpu.cpp: pack a side into tiles, multiply, write.
#include "tile_conv.h"

#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "tile_pack.h"
#include "tile_positions.h"

namespace hn {
namespace cpu {
namespace {

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

// Kept by the calling thread: the packed sides of its largest layer.
struct Workspace {
  Aligned<uint16_t> left, right;
};

Workspace& workspace() {
  static thread_local Workspace mine;
  return mine;
}

int64_t grain_of(int64_t units) { return std::max<int64_t>(1, units / 64); }

// A tiles of 16 images: [image blocks][2][positions][channel blocks].
void pack_images(const Maps& m, uint16_t* out) {
  const int64_t units = int64_t(m.image_blocks()) * 2 * m.positions, depth = m.channel_blocks();
  parallel_for(0, units, grain_of(units), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t c = 0; c < depth; ++c) {
        pack_rows(m.rows(u / m.positions * 16, u % m.positions, c * 32), out + (u * depth + c) * kTileElements);
      }
    }
  });
}

// Tiles of 32 images whose columns (B) or rows (A) are 16 channels: [channel blocks][2][image blocks][positions].
template <class Pack>
void pack_channels(const Maps& m, const Pack& pack, uint16_t* out) {
  const int64_t plane = int64_t(m.image_blocks()) * m.positions, depth = m.channel_blocks();
  parallel_for(0, plane, grain_of(plane), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t c = 0; c < depth; ++c) {
        uint16_t* const to = out + (c * 2 * plane + u) * kTileElements;
        pack(m.rows(u / m.positions * 32, u % m.positions, c * 32), to, to + plane * kTileElements);
      }
    }
  });
}

// B tiles of the weight: [blocks of 32 columns][2][taps][blocks of 32 of k]. Forward: columns are output channels.
void pack_weight(const TileConvParams& p, bool forward, uint16_t* out) {
  const ConvShape& s = p.shape;
  const int32_t taps = s.kernel_height * s.kernel_width, columns = forward ? s.out_channels : s.in_channels;
  const int64_t depth = blocks(forward ? s.in_channels : s.out_channels, 32), half = taps * depth;
  const Maps filters{p.weight, s.out_channels, taps, s.in_channels};
  const int64_t units = blocks(columns, 32) * half;
  parallel_for(0, units, grain_of(units), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t block = u / half, tap = u % half / depth, k = u % depth;
      uint16_t* const to = out + (block * 2 * half + tap * depth + k) * kTileElements;
      if (forward) {
        pack_columns(filters.rows(block * 32, tap, k * 32), to);
        pack_columns(filters.rows(block * 32 + 16, tap, k * 32), to + half * kTileElements);
      } else {
        pack_pairs(filters.rows(k * 32, tap, block * 32), to, to + half * kTileElements);
      }
    }
  });
}

// out[image][position][column] = the sum over the position's links of from[image][link] weight[tap][][column].
void map_product(const TileConvParams& p, bool forward) {
  const ConvShape& s = p.shape;
  const int32_t inputs = s.in_height * s.in_width, outputs = s.out_height * s.out_width;
  const Maps from = forward ? Maps{p.x, s.batch, inputs, s.in_channels} : Maps{p.dy, s.batch, outputs, s.out_channels};
  const int32_t positions = forward ? outputs : inputs, columns = forward ? s.out_channels : s.in_channels;
  const int64_t taps = int64_t(s.kernel_height) * s.kernel_width, depth = from.channel_blocks();
  const int64_t groups = from.image_blocks(), strips = blocks(columns, 32);
  const Links links = make_links(s, forward);

  uint16_t* const images = workspace().left.at_least(groups * 2 * from.positions * depth * kTileElements);
  uint16_t* const weight = workspace().right.at_least(strips * 2 * taps * depth * kTileElements);
  pack_images(from, images);
  pack_weight(p, forward, weight);

  const TileProduct product{kTileElements, kTileElements, from.positions * depth * kTileElements,
                            taps * depth * kTileElements};
  // a band of positions, so that what they see of 32 images stays near
  const int64_t band = std::clamp<int64_t>(kNearBytes / (depth * 2 * kTileElements * 2), 1, positions);
  const int64_t bands = blocks(positions, band), units = groups * bands * strips;
  parallel_for(0, units, 1, [&](int64_t begin, int64_t end) {
    const TileRegisters registers(matrix_tiles());
    alignas(64) float sums[kSumElements];
    std::vector<TileRun> runs(static_cast<size_t>(taps));
    for (int64_t u = begin; u < end; ++u) {
      const int64_t group = u / strips / bands, strip = u % strips, first = u / strips % bands * band;
      const uint16_t* const a = images + group * 2 * from.positions * depth * kTileElements;
      const uint16_t* const b = weight + strip * 2 * taps * depth * kTileElements;
      const int32_t rows = int32_t(std::min<int64_t>(32, s.batch - group * 32));
      const int32_t width = int32_t(std::min<int64_t>(32, columns - strip * 32));
      for (int64_t q = first; q < std::min<int64_t>(first + band, positions); ++q) {
        const Link* const link = links.links.data() + links.starts[size_t(q)];
        const int32_t n = int32_t(links.starts[size_t(q) + 1] - links.starts[size_t(q)]);
        for (int32_t i = 0; i < n; ++i) {
          runs[size_t(i)] = {a + link[i].from * depth * kTileElements, b + link[i].tap * depth * kTileElements,
                             int32_t(depth)};
        }
        multiply(runs.data(), n, product, false, sums);
        uint16_t* to = p.out + (group * 32 * positions + q) * columns + strip * 32;
        for (int32_t i = 0; i < rows; ++i, to += int64_t(positions) * columns) {
          const float* const row = sums + i / 16 * 512 + i % 16 * 16;
          store_sums(row, row + 256, width, to);
        }
      }
    }
  });
}

// A part of the pixels: images of one block and outputs of some rows.
struct Chunk {
  int32_t group, first_row, last_row;
};

// Blocks of images and bands of rows whose tiles stay near while all taps go over them.
std::vector<std::vector<Chunk>> make_chunks(const ConvShape& s, int32_t groups) {
  const int64_t inputs = int64_t(s.in_height) * s.in_width, outputs = int64_t(s.out_height) * s.out_width;
  const int64_t bytes = (inputs + outputs) * 2 * kTileElements * 2;
  std::vector<std::vector<Chunk>> found;
  if (bytes <= kNearBytes) {
    const int32_t together = int32_t(kNearBytes / bytes);
    for (int32_t g = 0; g < groups; ++g) {
      if (g % together == 0) found.emplace_back();
      found.back().push_back({g, 0, s.out_height});
    }
    return found;
  }
  const int32_t bands = int32_t(std::min<int64_t>(s.out_height, blocks(bytes, kNearBytes)));
  for (int32_t g = 0; g < groups; ++g) {
    for (int32_t band = 0; band < bands; ++band) {
      found.push_back({{g, s.out_height * band / bands, s.out_height * (band + 1) / bands}});
    }
  }
  return found;
}

void weight_gradient(const TileConvParams& p) {
  const ConvShape& s = p.shape;
  const Maps x{p.x, s.batch, s.in_height * s.in_width, s.in_channels};
  const Maps dy{p.dy, s.batch, s.out_height * s.out_width, s.out_channels};
  const int64_t groups = x.image_blocks(), x_plane = groups * x.positions, dy_plane = groups * dy.positions;
  uint16_t* const inputs = workspace().left.at_least(x.channel_blocks() * 2 * x_plane * kTileElements);
  uint16_t* const gradients = workspace().right.at_least(dy.channel_blocks() * 2 * dy_plane * kTileElements);
  pack_channels(x, pack_pairs, inputs);
  pack_channels(dy, pack_turned, gradients);

  // rows of outputs by tap
  struct Row {
    int32_t y, out, in, length;
  };
  const int32_t taps = s.kernel_height * s.kernel_width;
  std::vector<std::vector<Row>> rows(static_cast<size_t>(taps));
  for_each_row(s, [&](int32_t tap, int32_t out, int32_t in, int32_t length) {
    rows[size_t(tap)].push_back({out / s.out_width, out, in, length});
  });
  const auto chunks = make_chunks(s, int32_t(groups));
  const TileProduct product{kTileElements, s.stride_width * int64_t(kTileElements), dy_plane * kTileElements,
                            x_plane * kTileElements};
  const int64_t x_blocks = x.channel_blocks(), pairs = x_blocks * dy.channel_blocks();
  // taps are shared out too where there are few channels
  const int64_t parts = pairs >= 32 ? 1 : s.kernel_height, per_part = taps / parts;
  parallel_for(0, pairs * parts, 1, [&](int64_t begin, int64_t end) {
    const TileRegisters registers(matrix_tiles());
    Aligned<float> buffer;
    float* const sums = buffer.at_least(per_part * kSumElements);
    std::vector<TileRun> runs;
    for (int64_t u = begin; u < end; ++u) {
      const int64_t pair = u / parts, first = u % parts * per_part, o = pair / x_blocks * 32, c = pair % x_blocks * 32;
      const uint16_t* const a = gradients + o / 16 * dy_plane * kTileElements;
      const uint16_t* const b = inputs + c / 16 * x_plane * kTileElements;
      for (size_t at = 0; at < chunks.size(); ++at) {
        for (int64_t t = 0; t < per_part; ++t) {
          runs.clear();
          for (const Chunk& chunk : chunks[at]) {
            for (const Row& row : rows[size_t(first + t)]) {
              if (row.y < chunk.first_row || row.y >= chunk.last_row) continue;
              runs.push_back({a + (int64_t(chunk.group) * dy.positions + row.out) * kTileElements,
                              b + (int64_t(chunk.group) * x.positions + row.in) * kTileElements, row.length});
            }
          }
          multiply(runs.data(), int32_t(runs.size()), product, at > 0, sums + t * kSumElements);
        }
      }
      const int32_t width = int32_t(std::min<int64_t>(32, s.in_channels - c));
      for (int64_t i = 0; i < std::min<int64_t>(32, s.out_channels - o); ++i) {
        for (int64_t t = 0; t < per_part; ++t) {
          const float* const row = sums + t * kSumElements + i / 16 * 512 + i % 16 * 16;
          float* const to = p.dw + ((o + i) * taps + first + t) * s.in_channels + c;
          std::copy(row, row + std::min(width, 16), to);
          if (width > 16) std::copy(row + 256, row + 256 + width - 16, to + 16);
        }
      }
    }
  });
}

}  // namespace

void tile_conv_forward(const TileConvParams& p) { map_product(p, true); }
void tile_conv_input_gradient(const TileConvParams& p) { map_product(p, false); }
void tile_conv_weight_gradient(const TileConvParams& p) { weight_gradient(p); }

int tile_instructions() { return matrix_tiles() ? 2 : (bfloat16_products() ? 1 : 0); }

}  // namespace cpu
}  // namespace hn
