#include "json.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "error.h"

namespace hiddennet::runtime {
namespace {

constexpr int kMostLevels = 64;

const char* kind_name(Json::Kind kind) {
  constexpr const char* kNames[] = {"null", "true or false", "an integer", "a number", "text", "a list", "a map"};
  return kNames[size_t(kind)];
}

[[noreturn]] void wrong(const char* what, const char* wanted, Json::Kind got) {
  fail("expected ", what, " to be ", wanted, ", got ", kind_name(got), "; export the file again");
}

}  // namespace

class JsonParser {
 public:
  JsonParser(const std::string& text, const std::string& what) : text_(text), what_(what) {}

  Json whole() {
    Json found = value(0);
    blanks();
    if (at_ != text_.size()) bad("more after its end");
    return found;
  }

 private:
  [[noreturn]] void bad(const char* why) const {
    fail("expected ", what_, " as JSON, got ", why, " at character ", at_, "; export the file again");
  }

  void blanks() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  char peek() {
    blanks();
    if (at_ == text_.size()) bad("its end");
    return text_[at_];
  }

  void take(char wanted) {
    if (peek() != wanted) bad("another character");
    ++at_;
  }

  bool word(const char* wanted) {
    const size_t size = std::char_traits<char>::length(wanted);
    if (text_.compare(at_, size, wanted) != 0) return false;
    at_ += size;
    return true;
  }

  Json value(int level) {
    if (level > kMostLevels) bad("too many levels");
    Json made;
    const char first = peek();
    if (first == '{' || first == '[') {
      made.kind_ = first == '{' ? Json::Kind::map : Json::Kind::list;
      made.inner_ = first == '{' ? map(level) : list(level);
    } else if (first == '"') {
      auto inner = std::make_shared<Json::Inner>();
      inner->text = string();
      made.kind_ = Json::Kind::text;
      made.inner_ = std::move(inner);
    } else if (word("null")) {
      return made;
    } else if (word("true")) {
      made.kind_ = Json::Kind::boolean;
      made.boolean_ = true;
    } else if (word("false")) {
      made.kind_ = Json::Kind::boolean;
      made.boolean_ = false;
    } else {
      number(made);
    }
    return made;
  }

  std::shared_ptr<const Json::Inner> map(int level) {
    auto inner = std::make_shared<Json::Inner>();
    take('{');
    if (peek() == '}') return ++at_, inner;
    while (true) {
      if (peek() != '"') bad("no key");
      std::string key = string();
      take(':');
      inner->map.emplace_back(std::move(key), value(level + 1));
      if (peek() == '}') return ++at_, inner;
      take(',');
    }
  }

  std::shared_ptr<const Json::Inner> list(int level) {
    auto inner = std::make_shared<Json::Inner>();
    take('[');
    if (peek() == ']') return ++at_, inner;
    while (true) {
      inner->list.push_back(value(level + 1));
      if (peek() == ']') return ++at_, inner;
      take(',');
    }
  }

  void number(Json& made) {
    const char *begin = text_.data() + at_, *end = text_.data() + text_.size();
    int64_t whole;
    const auto integer = std::from_chars(begin, end, whole);
    const bool fraction = integer.ptr < end && (*integer.ptr == '.' || *integer.ptr == 'e' || *integer.ptr == 'E');
    if (integer.ec == std::errc() && !fraction) {
      made.kind_ = Json::Kind::integer;
      made.integer_ = whole;
      at_ += size_t(integer.ptr - begin);
      return;
    }
    double real;
    const auto found = std::from_chars(begin, end, real);
    if (found.ec != std::errc() || !std::isfinite(real)) bad("no value");
    made.kind_ = Json::Kind::number;
    made.number_ = real;
    at_ += size_t(found.ptr - begin);
  }

  uint32_t hex() {
    uint32_t code = 0;
    if (text_.size() - at_ < 4) bad("its end");
    const char *begin = text_.data() + at_, *end = begin + 4;
    const auto found = std::from_chars(begin, end, code, 16);
    if (found.ec != std::errc() || found.ptr != end) bad("an unknown escape");
    at_ += 4;
    return code;
  }

  void escaped(std::string& out) {
    if (at_ == text_.size()) bad("its end");
    const char c = text_[at_++];
    constexpr char kShort[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    for (size_t i = 0; kShort[i] != '\0'; i += 2) {
      if (kShort[i] == c) return out.push_back(kShort[i + 1]);
    }
    if (c != 'u') bad("an unknown escape");
    uint32_t code = hex();
    if (code >= 0xd800 && code < 0xdc00) {
      if (!word("\\u")) bad("half a character");
      const uint32_t low = hex();
      if (low < 0xdc00 || low > 0xdfff) bad("half a character");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code < 0x80) return out.push_back(char(code));
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    out.push_back(char((0xf00 >> more & 0xff) | code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) out.push_back(char(0x80 | (code >> (6 * i) & 0x3f)));
  }

  std::string string() {
    std::string out;
    for (++at_;;) {
      if (at_ == text_.size()) bad("its end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (c == '\\') {
        escaped(out);
      } else {
        out.push_back(c);
      }
    }
  }

  const std::string& text_;
  const std::string& what_;
  size_t at_ = 0;
};

Json Json::parse(const std::string& text, const std::string& what) { return JsonParser(text, what).whole(); }

bool Json::boolean(const char* what) const {
  if (kind_ != Kind::boolean) wrong(what, "true or false", kind_);
  return boolean_;
}

int64_t Json::integer(const char* what, int64_t low, int64_t high) const {
  if (kind_ != Kind::integer) wrong(what, "an integer", kind_);
  if (integer_ < low || integer_ > high) {
    fail("expected ", what, " to be in [", low, ", ", high, "], got ", integer_, "; export the file again");
  }
  return integer_;
}

double Json::number(const char* what) const {
  if (kind_ == Kind::integer) return double(integer_);
  if (kind_ != Kind::number) wrong(what, "a number", kind_);
  return number_;
}

const std::string& Json::text(const char* what) const {
  if (kind_ != Kind::text) wrong(what, "text", kind_);
  return inner_->text;
}

const std::vector<Json>& Json::list(const char* what) const {
  if (kind_ != Kind::list) wrong(what, "a list", kind_);
  return inner_->list;
}

const std::vector<std::pair<std::string, Json>>& Json::map(const char* what) const {
  if (kind_ != Kind::map) wrong(what, "a map", kind_);
  return inner_->map;
}

const Json* Json::find(const char* key) const {
  if (kind_ != Kind::map) return nullptr;
  for (const auto& [name, value] : inner_->map) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Json& Json::at(const char* key) const {
  const Json* found = find(key);
  if (found == nullptr) fail("expected the header to have ", key, ", got none; export the file again");
  return *found;
}

std::vector<int64_t> Json::integers(const char* what, size_t count, int64_t low, int64_t high) const {
  const auto& items = list(what);
  if (items.size() != count) fail("expected ", what, " to have ", count, " numbers, got ", items.size());
  std::vector<int64_t> found;
  for (const Json& item : items) found.push_back(item.integer(what, low, high));
  return found;
}

}  // namespace hiddennet::runtime
