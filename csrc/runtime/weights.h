// The weights of a file: of hidden layers made from seed, sign bits and mask bits by the generator of csrc/base, others
// as they are stored. Made anew whenever a plan needs them: what stays in memory is the file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "file.h"

namespace hiddennet::runtime {

class Weights {
 public:
  // Reads the layers of the header. Throws Error where one cannot be made of what the file holds.
  explicit Weights(const File& file);

  // The shape of a hidden layer's weight; null where the file has no such layer.
  const std::vector<int64_t>* shape(const std::string& layer) const;
  // The weight of a hidden layer as evaluation computes with it: OIHW, 0 where the mask hides. `out` is resized: memory
  // that is used again costs no page faults.
  void decode(const std::string& layer, std::vector<float>& out) const;
  // The one magnitude of its weights that are not 0; 0 where they have others.
  float constant(const std::string& layer) const;
  // How many of its weights are kept.
  int64_t kept(const std::string& layer) const;

 private:
  struct Stream {
    const uint8_t* data = nullptr;
    int64_t size = 0, taken = 0;  // in elements
  };
  struct Layer {
    std::vector<int64_t> shape;
    int64_t n = 1, kept = 0;
    bool masked = false;
    const uint8_t* mask = nullptr;
    int64_t code = 0;  // bytes of the mask's code; 0: a bit a weight
    enum class Held { generated, values, constant, signs, redraws } held = Held::generated;
    int kind = 0;  // of hn::Source, of generated, signs and redraws
    float scale = 0.0f;
    uint64_t seed = 0;
    uint32_t number = 0, redraw = 0;
    bool is_signed = false;
    int width = 1;
    std::vector<int64_t> zeros;
    const uint8_t *low = nullptr, *high = nullptr;  // the mask as ascending places, of compact networks
    const uint8_t *values = nullptr, *signs = nullptr, *redraws = nullptr, *scores = nullptr;
  };

  const uint8_t* take(const char* name, int64_t count);
  Layer read_layer(const Json& entry, const Json* kinds);
  void read_values(const Json& entry, const Json* kinds, Layer& layer);
  Layer read_product(const File& file, const std::string& name, const Json& entry);
  std::vector<uint8_t> mask_of(const std::string& name, const Layer& layer) const;

  std::map<std::string, Stream> streams_;
  std::map<std::string, Layer> layers_;
};

}  // namespace hiddennet::runtime
