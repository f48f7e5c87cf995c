#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "error.h"

namespace hiddennet::runtime {

Block::Block(size_t bytes) : size_((bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment) {
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, size_)));
  if (!data_) fail("expected ", size_, " bytes of memory for activations, got none; take a smaller batch");
}

void Block::Free::operator()(uint8_t* data) const { std::free(data); }

size_t place(std::vector<Life>& lives) {
  std::vector<size_t> order(lives.size()), placed;
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].bytes > lives[b].bytes; });
  size_t whole = 0;
  for (const size_t n : order) {
    Life& life = lives[n];
    life.bytes = (life.bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::vector<const Life*> near;  // those that live at some time with it
    for (const size_t other : placed) {
      if (lives[other].first <= life.last && life.first <= lives[other].last) near.push_back(&lives[other]);
    }
    std::sort(near.begin(), near.end(), [](const Life* a, const Life* b) { return a->offset < b->offset; });
    size_t at = 0;
    for (const Life* other : near) {
      if (at + life.bytes <= other->offset) break;
      at = std::max(at, other->offset + other->bytes);
    }
    life.offset = at;
    whole = std::max(whole, at + life.bytes);
    placed.push_back(n);
  }
  return whole;
}

}  // namespace hiddennet::runtime
