// Memory of values: one block for all, in which those that never live at the same time share a place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace hiddennet::runtime {

constexpr size_t kAlignment = 64;

// 64-byte aligned, not initialised. Throws Error where there is not as much.
class Block {
 public:
  explicit Block(size_t bytes);
  uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  size_t size_;
  std::unique_ptr<uint8_t, Free> data_;
};

struct Life {
  size_t bytes;
  int first, last;  // steps in which it is written first and read last
  size_t offset;    // found
};

// Sets the offsets and returns the bytes that are needed.
size_t place(std::vector<Life>& lives);

}  // namespace hiddennet::runtime
