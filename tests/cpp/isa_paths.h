// isa_paths.h: run a check on every path that CPU loops have on this machine.
#pragma once
#include "base/isa.h"
#include "check.h"

namespace hn {
namespace test {

// Calls f for each instruction set this CPU has.
template <class F>
void in_every_isa(F f) {
  const bool has_wide = wide();
  for (const int path : {0, 1, 2}) {
    const Context context(path == 0 ? "scalar" : (path == 1 ? "AVX2" : "AVX-512"));
    isa() = path == 0 ? Isa::kScalar : detect_isa();
    wide() = path == 2 && has_wide;
    f();
  }
  wide() = has_wide;
}

}  // namespace test
}  // namespace hn
