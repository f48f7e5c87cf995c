// layout_loops.h: rows turned into columns. No guard: included once an instruction set, with HN_LANES, the namespace of its
// vectors, and HN_LANES_TARGET.

namespace hiddennet::runtime {
namespace HN_LANES {

using namespace hn::cpu::HN_LANES;

// Whole squares of 16 x 16, so that both sides' lines are used whole. What is left over, by single numbers.
HN_LANES_TARGET inline void turn_rows(const TurnArgs& a) {
  constexpr int64_t kSquare = 16;
  const int64_t rows = a.rows / kSquare * kSquare, columns = a.columns / kSquare * kSquare;
  for (int64_t i0 = 0; i0 < rows; i0 += kSquare) {
    for (int64_t j0 = 0; j0 < columns; j0 += kSquare) {
      for (int64_t i = i0; i < i0 + kSquare; i += kLanes) {
        for (int64_t j = j0; j < j0 + kSquare; j += kLanes) {
          V v[kLanes];
          _Pragma("GCC unroll 16") for (int k = 0; k < kLanes; ++k) v[k] = load(a.x + (i + k) * a.x_row + j);
          hn::cpu::HN_LANES::turn(v);
          _Pragma("GCC unroll 16") for (int k = 0; k < kLanes; ++k) store(a.y + (j + k) * a.y_row + i, v[k]);
        }
      }
    }
  }
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = i < rows ? columns : 0; j < a.columns; ++j) a.y[j * a.y_row + i] = a.x[i * a.x_row + j];
  }
}

// The lanes of a place of the parts are pixels of one image, those of a pixel images.
HN_LANES_TARGET inline void turn_parts(const PartsArgs& a) {
  constexpr int64_t kImages = 16;
  for (int64_t c = 0; c < a.channels; ++c) {
    for (int64_t place = 0; place < a.pixels; place += kLanes) {
      const int32_t* const pixel = a.pixel + place;
      float* const images = a.images + c * a.pixels * kImages;
      for (int64_t i = 0; i < kImages; i += kLanes) {
        float* const parts = a.parts + i * a.image + c * a.pixels + place;
        V v[kLanes];
        _Pragma("GCC unroll 16") for (int k = 0; k < kLanes; ++k) {
          v[k] = load(a.to_images ? parts + k * a.image : images + pixel[k] * kImages + i);
        }
        hn::cpu::HN_LANES::turn(v);
        _Pragma("GCC unroll 16") for (int k = 0; k < kLanes; ++k) {
          store(a.to_images ? images + pixel[k] * kImages + i : parts + k * a.image, v[k]);
        }
      }
    }
  }
}

inline const TurnParts kTurnParts = turn_parts;
inline const TurnRows kTurnRows = turn_rows;

}  // namespace HN_LANES
}  // namespace hiddennet::runtime
