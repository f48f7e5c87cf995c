#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../base/isa.h"
#include "../base/rule.cuh"
#include "../ops/generate_weight/generate_weight.h"
#include "../ops/mask_code/mask_code.h"
#include "../ops/redrawn_weight/redrawn_weight.h"
#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kMostWeights = (int64_t(1) << 31) - 1;  // of a layer: the generator counts them in 32 bits
constexpr int64_t kMostUnheld = int64_t(1) << 28;         // of which the file holds next to nothing
constexpr int64_t kWeightsAByte = 1000;                   // of a code that holds next to nothing
constexpr int kSlots = 1 << hn::kCodeBits;

int kind_of(const std::string& name) {
  constexpr const char* kKinds[] = {"stored", "constant", "signs", "uniform", "normal", "laplace", "truncated_normal"};
  static_assert(sizeof(kKinds) / sizeof(kKinds[0]) == size_t(hn::kLastSource) + 1, "one name a source");
  for (int i = 1; i <= int(hn::kLastSource); ++i) {
    if (name == kKinds[i]) return i;
  }
  fail("expected a kind of number that this version knows, got ", name, "; upgrade hiddennet-runtime");
}

float to_float(const uint8_t* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// hiddennet/ops/mask_code.py: _frequencies.
void frequencies(int64_t kept, int64_t n, int64_t* found) {
  const double density = double(kept) / double(n);
  double ones[9] = {1.0}, zeros[9] = {1.0};
  for (int k = 0; k < 8; ++k) {
    ones[k + 1] = ones[k] * density;
    zeros[k + 1] = zeros[k] * (1.0 - density);
  }
  constexpr int64_t kChoose[9] = {1, 8, 28, 56, 70, 56, 28, 8, 1};
  int64_t sum = 0;
  for (int k = 0; k < 9; ++k) {
    found[k] = std::max<int64_t>(1, int64_t(ones[k] * zeros[8 - k] * kSlots));
    sum += kChoose[k] * found[k];
  }
  found[2 * kept <= n ? 0 : 8] += kSlots - sum;
}

// hiddennet/compaction/positions.py: how many low bits of each of n places below `size` are held apart.
int low_bits(int64_t n, int64_t size) {
  int bits = 0;
  for (int64_t each = n == 0 ? 0 : size / n; each > 1; each >>= 1) ++bits;
  return bits;
}

int64_t high_length(int64_t n, int64_t size, int bits) {
  return n == 0 ? 0 : n + (std::max<int64_t>(size - 1, 0) >> bits);
}

bool bit(const uint8_t* bits, int64_t i) { return bits[i >> 3] >> (i & 7) & 1; }

// 0 where the mask hides; whole bytes of it alone.
HN_INLINE void hide_body(const uint8_t* mask, int64_t bytes, float* weight) {
  for (int64_t b = 0; b < bytes; ++b) {
    uint32_t words[8];
    std::memcpy(words, weight + 8 * b, sizeof words);
    for (uint32_t q = 0; q < 8; ++q) words[q] &= 0u - (uint32_t(mask[b]) >> q & 1u);
    std::memcpy(weight + 8 * b, words, sizeof words);
  }
}

// One magnitude with signs, 0 where the mask hides.
HN_INLINE void spread_signs_body(const uint8_t* mask, const uint8_t* signs, float magnitude, int64_t bytes,
                                 float* out) {
  const uint32_t bits = hn::float_bits(magnitude);
  for (int64_t b = 0; b < bytes; ++b) {
    uint32_t words[8];
    for (uint32_t q = 0; q < 8; ++q) {
      words[q] = (bits ^ (uint32_t(signs[b]) >> q) << 31) & (0u - (uint32_t(mask[b]) >> q & 1u));
    }
    std::memcpy(out + 8 * b, words, sizeof words);
  }
}

HN_DISPATCH(hide, hide_body)
HN_DISPATCH(spread_signs, spread_signs_body)

// f(i, k) for the k-th kept weight i, in order.
template <class F>
void each_kept(const std::vector<uint8_t>& mask, const F& f) {
  int64_t k = 0;
  for (size_t b = 0; b < mask.size(); ++b) {
    for (uint32_t left = mask[b]; left != 0; left &= left - 1) f(8 * b + size_t(__builtin_ctz(left)), k++);
  }
}

}  // namespace

Weights::Weights(const File& file) {
  struct Known {
    const char *name, *dtype;
  };
  constexpr Known kStreams[] = {{"mask_bits", "U8"}, {"mask_codes", "U8"}, {"values", "F32"},
                                {"sign_bits", "U8"}, {"scores", "F32"},    {"redraws", "U8"}};
  for (const Known& known : kStreams) {
    Stream& stream = streams_[known.name];
    if (const StoredTensor* tensor = file.find(known.name)) {
      if (tensor->dtype != known.dtype || tensor->shape.size() != 1) {
        fail("expected ", known.name, " to be ", known.dtype, " of one dimension, got other; export the file again");
      }
      stream.data = tensor->data;
      stream.size = tensor->count;
    }
  }
  const Json* kinds = file.graph().find("kinds");
  int64_t unheld = 0;
  for (const Json& entry : file.header().at("layers").list("layers")) {
    const std::string& name = entry.at("name").text("a layer's name");
    Layer layer = read_layer(entry, kinds);
    const bool held = layer.held != Layer::Held::generated && (layer.held != Layer::Held::constant || layer.is_signed);
    if ((!layer.masked && !held) || (layer.code > 0 && layer.n > kWeightsAByte * layer.code)) unheld += layer.n;
    if (unheld > kMostUnheld) fail("expected a file that holds a bit or more of all but ", kMostUnheld, " weights");
    if (!layers_.emplace(name, std::move(layer)).second) fail("expected each layer once, got ", name, " twice");
  }
  if (const Json* products = file.header().find("products")) {
    for (const auto& [name, entry] : products->map("products")) {
      Layer layer = read_product(file, name, entry);
      if (layer.masked && layer.n > kWeightsAByte * (4 * layer.kept + 1)) unheld += layer.n;
      if (unheld > kMostUnheld) fail("expected a file that holds a bit or more of all but ", kMostUnheld, " weights");
      if (layer.n == 0) continue;  // nobody reads it
      if (!layers_.emplace(name, std::move(layer)).second) fail("expected each layer once, got ", name, " twice");
    }
  }
  for (const auto& [name, stream] : streams_) {
    if (stream.taken != stream.size) fail("expected ", stream.taken, " numbers in ", name, ", got ", stream.size);
  }
}

const uint8_t* Weights::take(const char* name, int64_t count) {
  Stream& stream = streams_.at(name);
  const int64_t width = std::strcmp(name, "values") == 0 || std::strcmp(name, "scores") == 0 ? 4 : 1;
  if (count > stream.size - stream.taken) {
    fail("expected at least ", stream.taken + count, " numbers in ", name, ", got ", stream.size);
  }
  const uint8_t* found = stream.data + stream.taken * width;
  stream.taken += count;
  return found;
}

Weights::Layer Weights::read_layer(const Json& entry, const Json* kinds) {
  Layer layer;
  for (const Json& size : entry.at("shape").list("a layer's shape")) {
    layer.shape.push_back(size.integer("a layer's shape", 1, kMostWeights));
    layer.n *= layer.shape.back();
    if (layer.n > kMostWeights) fail("expected layers of fewer than 2^31 weights, got more; export the file again");
  }
  layer.kept = entry.at("kept").integer("kept", 0, layer.n);
  const std::string& reveals = entry.at("reveals").text("reveals");
  layer.masked = reveals == "mask";
  if (!layer.masked && reveals != "all" && reveals != "expectation") {
    fail("expected a layer to reveal by mask, all or expectation, got ", reveals);
  }
  if (!layer.masked && layer.kept != layer.n) fail("expected all weights of a layer, got ", layer.kept);
  if (layer.masked) {
    const Json* code = entry.find("code");
    if (code != nullptr && !code->is_null()) {
      layer.code = code->integer("code", 1, kMostWeights);
      layer.mask = take("mask_codes", layer.code);
    } else {
      layer.mask = take("mask_bits", (layer.n + 7) / 8);
    }
  }
  if (reveals == "expectation") layer.scores = take("scores", layer.n);
  read_values(entry, kinds, layer);
  return layer;
}

void Weights::read_values(const Json& entry, const Json* kinds, Layer& layer) {
  const Json& source = entry.at("source");
  const auto read_draw = [&](const Json& drawn) {
    layer.seed = uint64_t(drawn.at("seed").integer("seed", 0, INT64_MAX));
    const Json& number = drawn.at("layer");
    layer.number = uint32_t(number.is_null() ? 0 : number.integer("layer", 0, UINT32_MAX));
    layer.redraw = uint32_t(drawn.at("redraw").integer("redraw", 0, UINT32_MAX));
  };
  if (source.at("kind").text("a source's kind") == "generated") {
    const std::string& name = entry.at("name").text("a layer's name");
    const Json* kind = kinds == nullptr ? nullptr : kinds->find(name.c_str());
    if (kind == nullptr) fail("expected the graph to name the kind of numbers of ", name, ", got none");
    layer.kind = kind_of(kind->text("a kind of numbers"));
    layer.scale = float(entry.at("scale").number("scale"));
    return read_draw(source);
  }
  const Json& weights = entry.at("weights");
  const std::string& held = weights.at("as").text("how weights are held");
  if (held == "values") {
    layer.held = Layer::Held::values;
    layer.values = take("values", layer.kept);
  } else if (held == "constant") {
    layer.held = Layer::Held::constant;
    layer.scale = float(weights.at("constant").number("constant"));
    layer.is_signed = weights.at("signed").boolean("signed");
    for (const Json& zero : weights.at("zeros").list("zeros")) {
      layer.zeros.push_back(zero.integer("zeros", 0, layer.kept - 1));
    }
    if (layer.is_signed) layer.signs = take("sign_bits", (layer.kept + 7) / 8);
  } else if (held == "signs" || held == "redraws") {
    layer.kind = kind_of(weights.at("kind").text("a kind of numbers"));
    layer.scale = float(weights.at("scale").number("scale"));
    read_draw(entry.at("drawn_from"));
    if (held == "signs") {
      layer.held = Layer::Held::signs;
      layer.signs = take("sign_bits", (layer.kept + 7) / 8);
    } else {
      layer.held = Layer::Held::redraws;
      layer.width = int(weights.at("bytes").integer("bytes", 1, 2));
      layer.redraws = take("redraws", layer.width * layer.kept);
    }
  } else {
    fail("expected weights that are held as values, constant, signs or redraws, got ", held);
  }
}

Weights::Layer Weights::read_product(const File& file, const std::string& name, const Json& entry) {
  Layer layer;
  layer.shape = entry.at("shape").integers("a product's shape", 2, 0, kMostWeights);
  layer.n = layer.shape[0] * layer.shape[1];
  if (layer.n > kMostWeights) fail("expected products of fewer than 2^31 weights, got ", name, " of more");
  layer.held = Layer::Held::values;
  layer.masked = entry.at("stored").text("stored") == "places";
  const auto tensor = [&](const char* leaf, const char* dtype, int64_t count) {
    const StoredTensor* found = file.find(name + leaf);
    if (found == nullptr || found->dtype != dtype || (count >= 0 && found->count != count)) {
      fail("expected ", name, leaf, " of ", dtype, " and of its product's size in the file; export it again");
    }
    return found;
  };
  const StoredTensor* values = tensor(layer.masked ? ".values" : ".weight", "F32", layer.masked ? -1 : layer.n);
  layer.values = values->data;
  layer.kept = values->count;
  if (layer.kept > layer.n) fail("expected at most ", layer.n, " edges in ", name, ", got ", layer.kept);
  if (layer.masked) {
    const int bits = low_bits(layer.kept, layer.n);
    layer.low = tensor(".low", "U8", (layer.kept * bits + 7) / 8)->data;
    layer.high = tensor(".high", "U8", (high_length(layer.kept, layer.n, bits) + 7) / 8)->data;
  }
  return layer;
}

const std::vector<int64_t>* Weights::shape(const std::string& layer) const {
  const auto found = layers_.find(layer);
  return found == layers_.end() ? nullptr : &found->second.shape;
}

float Weights::constant(const std::string& name) const {
  const Layer& layer = layers_.at(name);
  const bool drawn = hn::draws_words(hn::Source(layer.kind)) || layer.held == Layer::Held::values;
  return drawn || layer.scores != nullptr ? 0.0f : std::fabs(layer.scale);
}

int64_t Weights::kept(const std::string& layer) const { return layers_.at(layer).kept; }

std::vector<uint8_t> Weights::mask_of(const std::string& name, const Layer& layer) const {
  std::vector<uint8_t> bits(size_t(layer.n + 7) / 8, 0xff);
  if (layer.high != nullptr) {
    std::fill(bits.begin(), bits.end(), uint8_t(0));
    const int low = low_bits(layer.kept, layer.n);
    const int64_t length = high_length(layer.kept, layer.n, low);
    for (int64_t i = 0, rank = 0, last = -1; i < length && rank < layer.kept; ++i) {
      if (!bit(layer.high, i)) continue;
      int64_t place = (i - rank) << low;
      for (int b = 0; b < low; ++b) place |= int64_t(bit(layer.low, rank * low + b)) << b;
      if (place <= last || place >= layer.n) fail("expected ascending places of edges in ", name, ", got others");
      bits[size_t(place >> 3)] = uint8_t(bits[size_t(place >> 3)] | 1 << (place & 7));
      last = place;
      ++rank;
    }
  } else if (layer.masked && layer.code == 0)
    std::copy_n(layer.mask, bits.size(), bits.data());
  if (layer.masked && layer.code > 0) {
    int64_t found[9];
    frequencies(layer.kept, layer.n, found);
    hn::MaskCode code;
    if (!hn::cpu::make_mask_code(found, code) ||
        !hn::cpu::decode_mask(code, layer.mask, layer.code, bits.data(), int64_t(bits.size()))) {
      fail("expected the code of a mask in layer ", name, ", got other bytes; export the file again");
    }
  }
  if (layer.n % 8 != 0) bits.back() = uint8_t(bits.back() & ((1 << (layer.n % 8)) - 1));
  int64_t count = 0;
  for (const uint8_t byte : bits) count += __builtin_popcount(byte);
  if (count != layer.kept) fail("expected ", layer.kept, " weights revealed in layer ", name, ", got ", count);
  return bits;
}

void Weights::decode(const std::string& name, std::vector<float>& out) const {
  const auto place = layers_.find(name);
  if (place == layers_.end()) fail("expected a hidden layer ", name, " in the file, got none; export it again");
  const Layer& layer = place->second;
  const std::vector<uint8_t> mask = mask_of(name, layer);
  out.resize(8 * mask.size());  // whole bytes of the mask
  const hn::Draw draw{uint32_t(layer.seed), uint32_t(layer.seed >> 32), layer.number, layer.redraw};
  const hn::Layout flat = hn::flat_layout(int32_t(layer.n));
  const auto kind = hn::Source(layer.kind);
  switch (layer.held) {
    case Layer::Held::values:
      each_kept(mask, [&](size_t i, int64_t k) { out[i] = to_float(layer.values + 4 * k); });
      break;
    case Layer::Held::constant: {
      std::vector<uint8_t> zero(layer.zeros.empty() ? 0 : size_t(layer.kept), 0);
      for (const int64_t k : layer.zeros) zero[size_t(k)] = 1;
      std::fill(out.begin(), out.end(), 0.0f);
      each_kept(mask, [&](size_t i, int64_t k) {
        const float magnitude = !zero.empty() && zero[size_t(k)] != 0 ? 0.0f : layer.scale;
        out[i] = layer.is_signed && bit(layer.signs, k) ? -magnitude : magnitude;
      });
      break;
    }
    case Layer::Held::redraws: {
      std::vector<int16_t> redraws(size_t(layer.n), 0);
      each_kept(mask, [&](size_t i, int64_t k) {
        const int high = layer.width == 2 ? layer.redraws[layer.kept + k] : 0;
        redraws[i] = int16_t(layer.redraws[k] | high << 8);
      });
      for (const int16_t redraw : redraws) {
        if (redraw < 0) fail("expected redraws below 2^15 in layer ", name, ", got more; export the file again");
      }
      hn::cpu::redrawn_weight({redraws.data(), kind, layer.scale, draw, flat, out.data()});
      break;
    }
    case Layer::Held::generated:
    case Layer::Held::signs: {
      if (kind == hn::Source::kSigns) {
        std::vector<uint8_t> signs(size_t(layer.n + 7) / 8);
        hn::cpu::generate_signs({draw, int32_t(layer.n), signs.data()});
        spread_signs(static_cast<const uint8_t*>(mask.data()), static_cast<const uint8_t*>(signs.data()), layer.scale,
                     int64_t(signs.size()), out.data());
        break;
      }
      hn::GenerateWeightParams p{};
      p.source = {kind, nullptr, nullptr, layer.scale, draw};
      p.layout = flat;
      p.dtype = hn::Dtype::kFloat32;
      p.out = out.data();
      hn::cpu::generate_weight(p);
      break;
    }
  }
  if (layer.held == Layer::Held::signs) {
    each_kept(mask, [&](size_t i, int64_t k) {
      const float magnitude = __builtin_fabsf(out[i]);
      out[i] = bit(layer.signs, k) ? -magnitude : magnitude;
    });
  }
  if (layer.masked) {
    hide(static_cast<const uint8_t*>(mask.data()), int64_t(mask.size()), out.data());
  }
  if (layer.scores != nullptr) {
    for (int64_t i = 0; i < layer.n; ++i) out[size_t(i)] *= hn::sigmoid(to_float(layer.scores + 4 * i));
  }
  out.resize(size_t(layer.n));
}

}  // namespace hiddennet::runtime
