// program.h: the PTX text that nvcc makes, read into kernels of decoded instructions. Only what our kernels use is known;
// an instruction that is not says so when it is reached.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Machine;
struct Thread;
struct Warp;

// Its value is register + number: a register, a number, or an address made of both.
struct Operand {
  int reg = 0;
  uint64_t number = 0;
};

constexpr int kZero = 0, kTrash = 1;  // registers that hold 0, and what nobody wants

struct Type {
  char kind = 'b';  // b, u, s, f, or p: a predicate
  int bits = 0;     // 0: no type
};

inline Type type_of(const std::string& word) {
  if (word == "pred") return {'p', 1};
  if (word == "bf16x2") return {'b', 32};
  const size_t digits = word.find_first_of("0123456789");
  const bool known = word.rfind("bf", 0) == 0 || (digits == 1 && std::strchr("busf", word[0]));
  return {word[0], known ? std::atoi(word.c_str() + digits) : 0};
}

struct Instruction {
  std::string text, name;  // name: without its type and how it rounds, "setp.eq", "cvt.f32" of cvt.rn.f32.s32
  std::vector<std::string> words;
  Type type, to;                  // of what it reads, and makes
  std::vector<Operand> operands;  // of vectors one by one; zeros follow the last
  int items = 1;                  // operands but for one: those of a vector that is loaded, stored, packed or unpacked
  bool unpacks = false;           // its vector comes first
  int guard = kZero;
  bool unless = false;                                      // the guard is negated
  char space = 'g';                                         // 's' shared memory, 'p' parameters, 'g' global or any
  bool releases = false, acquires = false, strong = false;  // strong: other blocks see it as it happens
  bool stops = false;                                       // here a thread waits or ends
  size_t target = 0;

  void (*run)(Machine&, Thread&, const Instruction&) = nullptr;
  void (*warp_run)(Machine&, const Warp&, const Instruction&) = nullptr;  // once all lanes of a warp have met at `run`
  uint64_t (*value)(const Instruction&, const uint64_t (&x)[4]) = nullptr;  // of arithmetic, atomics and reductions

  bool has(const char* word) const { return std::find(words.begin(), words.end(), word) != words.end(); }
};

void decode(Instruction* i);  // instructions.h: sets `run`, `warp_run` and `value`

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::pair<size_t, size_t>> parameters;  // begin and end
  std::vector<uint8_t> arguments;                     // the code holds addresses in here
  std::map<std::string, int> specials;                // of %tid.x and the like: their registers
  int registers = 2;
  size_t shared_bytes = 0;  // static; dynamic shared memory follows
};

class Parser {
 public:
  explicit Parser(const std::string& text) {
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) text_ += line.substr(0, line.find("//")) + '\n';
  }

  std::map<std::string, Kernel> kernels() {
    std::map<std::string, Kernel> all;
    for (size_t at = 0; (at = text_.find(".entry", at)) != std::string::npos;) {
      const size_t name = at + 7, list = text_.find('(', at), body = text_.find('{', at);
      Kernel& k = all[text_.substr(name, list - name)];
      k.name = text_.substr(name, list - name);
      symbols_.clear();
      registers_.clear();
      read_parameters(k, text_.substr(list + 1, text_.find(')', list) - list - 1));
      at = body + 1;
      for (int depth = 1; depth > 0; ++at) depth += (text_[at] == '{') - (text_[at] == '}');
      read_body(k, text_.substr(body + 1, at - body - 2));
    }
    return all;
  }

 private:
  // The parts between characters `by`, without space around them.
  static std::vector<std::string> split(const std::string& s, char by) {
    std::vector<std::string> parts;
    std::istringstream in(s);
    for (std::string part; std::getline(in, part, by);) {
      const size_t begin = std::min(part.find_first_not_of(" \t\n\r"), part.size());
      parts.push_back(part.substr(begin, part.find_last_not_of(" \t\n\r") + 1 - begin));
    }
    return parts;
  }

  // `.param .align 8 .b8 name[32]`: its name; where it begins after `end`, which moves to its own.
  static std::string declared(std::string s, size_t* begin, size_t* end) {
    std::replace(s.begin(), s.end(), '[', ' ');
    std::replace(s.begin(), s.end(), ']', ' ');
    std::istringstream in(s);
    size_t align = 0, bytes = 0, count = 1;
    std::string word, name;
    while (in >> word) {
      if (word == ".align") {
        in >> align;
      } else if (word[0] == '.') {
        bytes = size_t(type_of(word.substr(1)).bits) / 8;
      } else {
        name = word;
        in >> count;
      }
    }
    align = std::max(align, bytes);
    *begin = (*end + align - 1) / align * align;
    *end = *begin + bytes * std::max<size_t>(count, 1);
    return name;
  }

  void read_parameters(Kernel& k, const std::string& list) {
    size_t begin = 0, end = 0;
    for (const std::string& p : split(list, ',')) {
      const std::string name = declared(p, &begin, &end);
      symbols_[name] = begin;
      k.parameters.push_back({begin, end});
    }
    k.arguments.resize(end + 16);
    for (auto& symbol : symbols_) symbol.second += uint64_t(k.arguments.data());
  }

  void read_body(Kernel& k, std::string body) {
    std::map<std::string, size_t> labels;
    std::replace(body.begin(), body.end(), ':', ';');  // a label is a statement too
    for (std::string s : split(body, ';')) {
      s.erase(0, std::min(s.find_first_not_of("{} \t\n\r"), s.size()));  // scopes
      if (s[0] == '$') {
        labels[s] = k.code.size();
      } else if (s.rfind(".shared", 0) == 0) {
        size_t begin = 0;
        const std::string name = declared(s, &begin, &k.shared_bytes);
        symbols_[name] = begin;
      } else if (!s.empty() && s[0] != '.') {
        if (k.code.empty()) symbols_["hn_dynamic_shared"] = k.shared_bytes = (k.shared_bytes + 127) / 128 * 128;
        k.code.push_back(instruction(k, s));
      }
    }
    for (Instruction& i : k.code) {
      if (i.words[0] == "bra") i.target = labels.at(i.text.substr(i.text.find('$')));
    }
  }

  Instruction instruction(Kernel& k, std::string s) {
    Instruction i;
    i.text = s;
    if (s[0] == '@') {
      i.unless = s[1] == '!';
      i.guard = operand(k, s.substr(i.unless ? 2 : 1, s.find(' ') - (i.unless ? 2 : 1))).reg;
      s.erase(0, s.find_first_not_of(" \t", s.find(' ')));
    }
    const size_t end = std::min(s.find_first_of(" \t"), s.size());
    i.words = split(s.substr(0, end), '.');
    i.type = i.to = type_of(i.words.size() > 1 ? i.words.back() : "");
    for (size_t w = 0; w < i.words.size() - (i.type.bits != 0); ++w) {
      const std::string& word = i.words[w];
      if (word != "rn" && word != "approx" && word != "ftz") i.name += (w == 0 ? "" : ".") + word;
    }
    std::string list = s.substr(end);
    i.unpacks = list.find('{') < list.find(',');
    for (char& c : list) {  // one list of operands
      if (std::strchr(",|{}[]", c)) c = ' ';
    }
    std::istringstream in(list);
    for (std::string o; i.words[0] != "bra" && in >> o;) i.operands.push_back(operand(k, o));
    i.items = int(i.operands.size()) - 1;
    i.operands.resize(i.operands.size() + 5);
    i.space = i.has("shared") ? 's' : i.has("param") ? 'p' : 'g';
    i.releases = i.has("release") || i.has("acq_rel");
    i.acquires = i.has("acquire") || i.has("acq_rel");
    i.strong = i.releases || i.acquires || i.has("relaxed");
    decode(&i);
    i.stops = i.warp_run || i.words[0] == "bar" || i.name == "ret";
    return i;
  }

  Operand operand(Kernel& k, const std::string& s) {
    const size_t plus = s.find('+');
    if (plus != std::string::npos) {
      Operand sum = operand(k, s.substr(0, plus));
      sum.number += uint64_t(std::strtoll(s.c_str() + plus + 1, nullptr, 0));
      return sum;
    }
    if (s == "_") return {kTrash, 0};
    if (s[0] == '%') {
      const auto known = registers_.find(s);
      if (known != registers_.end()) return {known->second, 0};
      if (s.find('.') != std::string::npos || s.rfind("%lane", 0) == 0) k.specials[s] = k.registers;
      return {registers_[s] = k.registers++, 0};
    }
    if (s[0] == '0' && (s[1] == 'f' || s[1] == 'd')) return {kZero, std::strtoull(&s[2], nullptr, 16)};
    if (s[0] == '-') return {kZero, uint64_t(std::strtoll(s.c_str(), nullptr, 0))};
    if (std::isdigit(s[0])) return {kZero, std::strtoull(s.c_str(), nullptr, 0)};
    const auto symbol = symbols_.find(s.find("hn_dynamic_shared") == std::string::npos ? s : "hn_dynamic_shared");
    if (symbol == symbols_.end()) throw Error("ptx: " + k.name + ": no symbol " + s);
    return {kZero, symbol->second};
  }

  std::string text_;
  std::map<std::string, uint64_t> symbols_;  // addresses of parameters, places in shared memory
  std::map<std::string, int> registers_;
};

}  // namespace ptx
