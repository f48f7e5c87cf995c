// The file of a network: safetensors, whose metadata has the artifact's header and the graph. Checked whole when read.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "json.h"

namespace hiddennet::runtime {

struct StoredTensor {
  std::string dtype;  // as safetensors has it: F32, U8, ...
  std::vector<int64_t> shape;
  int64_t count;  // of elements
  const uint8_t* data;
  size_t bytes;
};

class File {
 public:
  // data: of the whole file; name: for what goes wrong. Throws Error where it is damaged, or holds no graph.
  File(std::vector<uint8_t> data, const std::string& name);
  // Throws Error where there is none, too.
  static File open(const std::string& path);

  const Json& header() const { return header_; }
  const Json& graph() const { return graph_; }
  const StoredTensor* find(const std::string& name) const;
  // A tensor of floating point numbers as float32. Throws Error where there is none of `count` elements.
  std::vector<float> floats(const std::string& name, int64_t count) const;
  size_t size() const { return data_.size(); }

 private:
  void read_tensors(const Json& table, size_t begin, const std::string& path);
  void check_sum(const std::string& path) const;

  std::vector<uint8_t> data_;
  Json header_, graph_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace hiddennet::runtime
