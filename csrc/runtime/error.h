// What goes wrong is one sentence: what was expected, what came, what to do. It leaves the library as text.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace hiddennet::runtime {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  text << "hiddennet.runtime: ";
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace hiddennet::runtime
