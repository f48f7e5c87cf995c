// Seconds of plans that were measured on this machine: kept in the process, and in the user's cache for later ones.
#pragma once

#include <string>
#include <vector>

#include "choice.h"

namespace hiddennet::runtime {

// The file is a help and nothing more: where it cannot be read or written, all is measured again by the next process.
class Measured {
 public:
  static std::vector<Option> find(const std::string& key);
  static void put(const std::string& key, const std::vector<Option>& options);
};

}  // namespace hiddennet::runtime
