// check.h: a test program in one header: TEST, CHECK, CHECK_EQ, CHECK_THROWS and main. One test
// file is one program.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hn {
namespace test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Registered {
  Registered(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a failure adds about its surroundings: the order of the threads, a size, a seed.
inline std::vector<std::string>& context() {
  static std::vector<std::string> lines;
  return lines;
}

struct Context {
  explicit Context(std::string line) { context().push_back(std::move(line)); }
  ~Context() { context().pop_back(); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::string s = std::string(file) + ":" + std::to_string(line) + ": " + what;
  for (const std::string& c : context()) s += "\n    in " + c;
  throw Failure(s);
}

template <class T>
std::string shown(const T& v) {
  std::ostringstream s;
  s.precision(9);
  if constexpr (std::is_enum<T>::value) {
    s << static_cast<long long>(v);
  } else {
    s << +v;  // bytes as numbers
  }
  return s.str();
}
inline std::string shown(const std::string& v) { return "\"" + v + "\""; }
inline std::string shown(const char* v) { return shown(std::string(v)); }

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  fail(file, line, std::string("CHECK_EQ(") + text + "): got " + shown(a) + ", expected " + shown(b));
}

// Equal bytes: -0 differs from 0. Any NaN equals any other: a GPU makes its own (0x7fffffff), a CPU hands on what it got.
template <class T>
bool same_element(const T& a, const T& b) {
  if constexpr (std::is_floating_point<T>::value) {
    if (a != a && b != b) return true;
  }
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// The bits of a float, for those who compare integers; one pattern for every NaN.
inline uint32_t comparable_bits(float v) {
  uint32_t bits = 0x7fffffffu;
  if (v == v) std::memcpy(&bits, &v, sizeof v);
  return bits;
}

// Equal lengths and equal elements.
template <class T>
void check_equal(const std::vector<T>& a, const std::vector<T>& b, const char* text, const char* file, int line) {
  check_equal(a.size(), b.size(), text, file, line);
  for (size_t i = 0; i < a.size(); ++i) {
    if (same_element(a[i], b[i])) continue;
    fail(file, line,
         std::string("CHECK_EQ(") + text + "): at " + std::to_string(i) + " of " + std::to_string(a.size()) + " got " +
             shown(a[i]) + ", expected " + shown(b[i]));
  }
}

template <class E>
void check_throws(const std::function<void()>& run, const char* part, const char* file, int line) {
  try {
    run();
  } catch (const E& e) {
    if (std::strstr(e.what(), part)) return;
    fail(file, line, std::string("expected an error that says \"") + part + "\", got \"" + e.what() + "\"");
  }
  fail(file, line, std::string("expected an error that says \"") + part + "\", got none");
}

inline int run_all(const char* only) {
  int passed = 0, failed = 0;
  for (const Case& c : cases()) {
    if (only && !std::strstr(c.name, only)) continue;
    try {
      c.run();
      ++passed;
    } catch (const std::exception& e) {
      ++failed;
      std::fprintf(stderr, "FAILED %s\n  %s\n", c.name, e.what());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || passed == 0;
}

}  // namespace test
}  // namespace hn

#define TEST(name)                                                     \
  static void name();                                                  \
  static const ::hn::test::Registered name##_registered(#name, &name); \
  static void name()

#define CHECK(condition)                                                                      \
  do {                                                                                        \
    if (!(condition)) ::hn::test::fail(__FILE__, __LINE__, "CHECK(" #condition ") is false"); \
  } while (false)

#define CHECK_EQ(got, expected) ::hn::test::check_equal((got), (expected), #got ", " #expected, __FILE__, __LINE__)

// The statement throws an Error whose message contains `part`.
#define CHECK_THROWS(Error, part, ...) ::hn::test::check_throws<Error>([&] { __VA_ARGS__; }, part, __FILE__, __LINE__)

// An argument runs only the tests whose names contain it.
int main(int argc, char** argv) { return ::hn::test::run_all(argc > 1 ? argv[1] : nullptr); }
