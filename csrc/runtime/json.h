// JSON as the header of a file has it: parsed whole, at most 64 levels deep, integers exact in 64 bits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hiddennet::runtime {

class Json {
 public:
  enum class Kind : uint8_t { null, boolean, integer, number, text, list, map };

  // what: where the text is from, for what goes wrong.
  static Json parse(const std::string& text, const std::string& what);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }

  // All that follow throw Error where this is something else.
  bool boolean(const char* what) const;
  int64_t integer(const char* what, int64_t low, int64_t high) const;
  double number(const char* what) const;  // finite; integers, too
  const std::string& text(const char* what) const;
  const std::vector<Json>& list(const char* what) const;
  const std::vector<std::pair<std::string, Json>>& map(const char* what) const;

  const Json* find(const char* key) const;  // null where this is no map, or has not that key
  const Json& at(const char* key) const;    // of a map
  std::vector<int64_t> integers(const char* what, size_t count, int64_t low, int64_t high) const;

 private:
  friend class JsonParser;
  struct Inner;
  Kind kind_ = Kind::null;
  union {
    bool boolean_;
    int64_t integer_ = 0;
    double number_;
  };
  std::shared_ptr<const Inner> inner_;
};

struct Json::Inner {
  std::string text;
  std::vector<Json> list;
  std::vector<std::pair<std::string, Json>> map;
};

}  // namespace hiddennet::runtime
