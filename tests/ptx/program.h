// program.h: the PTX text that nvcc makes, read into kernels of decoded instructions. Only what our kernels use is known;
// an instruction that is not says so when it is reached.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
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
struct Instruction;
using Run = void (*)(Machine&, Thread&, const Instruction&);

// Its value is register + number: a register, a number, or an address made of both.
struct Operand {
  int reg = 0;
  uint64_t number = 0;
};

constexpr int kZero = 0, kTrash = 1;  // registers that hold 0, and what nobody wants

struct Instruction {
  std::string op, text;
  std::vector<std::string> mods;
  std::vector<Operand> operands;  // of vectors one by one
  Run run = nullptr;
  Run warp_run = nullptr;        // what a warp does once all its lanes have met at `run`
  int guard = kZero, items = 1;  // items: of a vector that is loaded, stored, packed or unpacked
  bool unless = false;           // the guard is negated
  bool vector_first = false;
  bool stops = false;                                       // here a thread waits or ends
  char space = 'g';                                         // 's' shared memory, 'p' parameters, 'g' global or any
  bool releases = false, acquires = false, strong = false;  // strong: other blocks see it as it happens
  size_t target = 0;

  bool has(const std::string& mod) const {
    for (const std::string& m : mods) {
      if (m == mod) return true;
    }
    return false;
  }
};

struct Parameter {
  size_t offset, bytes;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  std::vector<uint8_t> arguments;       // the code holds addresses in here
  std::map<std::string, int> specials;  // of %tid.x and the like: their registers
  int registers = 2;
  size_t shared_bytes = 0;  // static; dynamic shared memory follows
};

Run find_run(const Instruction& i, Run* warp_run);  // operations.h

inline size_t type_bytes(const std::string& t) {
  if (t == "pred") return 1;
  const size_t digits = t.find_first_of("0123456789");
  return digits == std::string::npos || digits == 0 ? 0 : size_t(std::atoi(t.c_str() + digits)) / 8;
}

class Parser {
 public:
  explicit Parser(const std::string& text) {
    for (size_t at = 0; at < text.size();) {  // without comments
      const size_t comment = std::min(text.find("//", at), text.size());
      text_ += text.substr(at, comment - at);
      at = std::min(text.find('\n', comment), text.size());
    }
  }

  std::map<std::string, Kernel> kernels() {
    std::map<std::string, Kernel> all;
    for (size_t at = 0; (at = text_.find(".entry", at)) != std::string::npos;) {
      const size_t name = at + 7, parameters = text_.find('(', at), body = text_.find('{', at);
      Kernel& k = all[text_.substr(name, parameters - name)];
      k.name = text_.substr(name, parameters - name);
      symbols_.clear();
      names_.clear();
      labels_.clear();
      size_t end = body;
      for (int depth = 0; end == body || depth > 0; ++end) depth += (text_[end] == '{') - (text_[end] == '}');
      read_parameters(k, text_.substr(parameters + 1, text_.find(')', parameters) - parameters - 1));
      read_body(k, text_.substr(body + 1, end - body - 2));
      at = end;
    }
    return all;
  }

 private:
  static std::string trimmed(const std::string& s) {
    const size_t a = s.find_first_not_of(" \t\n\r"), b = s.find_last_not_of(" \t\n\r");
    return a == std::string::npos ? "" : s.substr(a, b - a + 1);
  }

  static std::vector<std::string> split(const std::string& s, char by) {
    std::vector<std::string> parts;
    std::istringstream in(s);
    for (std::string part; std::getline(in, part, by);) parts.push_back(trimmed(part));
    return parts;
  }

  // `.param .align 8 .b8 name[32]`: its name, and by how much `end` grows past its alignment.
  static std::string declared(const std::string& s, size_t* begin, size_t* end) {
    std::istringstream in(s);
    std::string word, name;
    size_t align = 0, bytes = 0;
    while (in >> word) {
      if (word == ".align") {
        in >> align;
      } else if (word[0] == '.') {
        bytes = type_bytes(word.substr(1));
      } else {
        name = word;
      }
    }
    const size_t bracket = name.find('[');
    if (align == 0) align = bytes;
    if (bracket != std::string::npos) bytes *= size_t(std::atoll(name.c_str() + bracket + 1));
    *begin = (*end + align - 1) / align * align;
    *end = *begin + bytes;
    return name.substr(0, bracket);
  }

  void read_parameters(Kernel& k, const std::string& list) {
    std::vector<std::string> names;
    size_t begin = 0, end = 0;
    for (const std::string& p : split(list, ',')) {
      names.push_back(declared(p, &begin, &end));
      k.parameters.push_back({begin, end - begin});
    }
    k.arguments.resize(end + 16);
    for (size_t p = 0; p < names.size(); ++p) symbols_[names[p]] = uint64_t(&k.arguments[k.parameters[p].offset]);
  }

  void read_body(Kernel& k, const std::string& body) {
    std::vector<std::string> goals;  // an instruction each
    size_t begin = 0;
    for (std::string s : split(body, ';')) {
      for (;;) {  // labels and scopes before a statement
        s = trimmed(s);
        const size_t colon = s.find(':');
        if (!s.empty() && (s[0] == '{' || s[0] == '}')) {
          s.erase(0, 1);
        } else if (!s.empty() && s[0] == '$' && colon != std::string::npos) {
          labels_[s.substr(0, colon)] = k.code.size();
          s.erase(0, colon + 1);
        } else {
          break;
        }
      }
      if (s.compare(0, 7, ".shared") == 0) {
        const std::string name = declared(s, &begin, &k.shared_bytes);
        symbols_[name] = begin;
        continue;
      }
      if (s.empty() || s[0] == '.') continue;
      if (goals.empty()) symbols_["hn_dynamic_shared"] = k.shared_bytes = (k.shared_bytes + 127) / 128 * 128;
      goals.emplace_back();
      k.code.push_back(instruction(k, s, &goals.back()));
    }
    for (size_t i = 0; i < goals.size(); ++i) {
      if (!goals[i].empty()) k.code[i].target = labels_.at(goals[i]);
    }
  }

  Instruction instruction(Kernel& k, std::string s, std::string* goal) {
    Instruction i;
    i.text = s;
    if (s[0] == '@') {
      i.unless = s[1] == '!';
      const size_t end = s.find_first_of(" \t");
      i.guard = operand(k, s.substr(i.unless ? 2 : 1, end - (i.unless ? 2 : 1))).reg;
      s = trimmed(s.substr(end));
    }
    const size_t end = s.find_first_of(" \t");
    i.mods = split(s.substr(0, end), '.');
    i.op = i.mods[0];
    i.mods.erase(i.mods.begin());
    std::string rest = end == std::string::npos ? "" : trimmed(s.substr(end));
    if (i.op == "bra") {
      *goal = rest;
    } else {
      i.vector_first = !rest.empty() && rest[0] == '{';
      const size_t open = rest.find('{'), close = rest.find('}');
      if (open != std::string::npos) i.items = int(split(rest.substr(open, close - open), ',').size());
      for (char& c : rest) {  // one list of operands
        if (c == '{' || c == '}' || c == '[' || c == ']') c = ' ';
        if (c == '|') c = ',';
      }
      for (const std::string& o : split(rest, ',')) i.operands.push_back(operand(k, o));
    }
    i.operands.resize(i.operands.size() + 4);  // reading past the last one gives zeros
    i.space = i.has("shared") ? 's' : i.has("param") ? 'p' : 'g';
    i.releases = i.has("release") || i.has("acq_rel");
    i.acquires = i.has("acquire") || i.has("acq_rel");
    i.strong = i.space == 'g' && (i.releases || i.acquires || i.has("relaxed") || i.has("volatile"));
    i.run = find_run(i, &i.warp_run);
    i.stops = i.warp_run || i.op == "bar" || i.op == "ret";
    return i;
  }

  Operand operand(Kernel& k, const std::string& s) {
    const size_t plus = s.find('+');
    if (plus != std::string::npos) {
      Operand sum = operand(k, trimmed(s.substr(0, plus)));
      sum.number += uint64_t(std::strtoll(s.c_str() + plus + 1, nullptr, 0));
      return sum;
    }
    if (s == "_") return {kTrash, 0};
    if (s[0] == '%') {
      const auto known = names_.find(s);
      if (known != names_.end()) return {known->second, 0};
      if (s.find('.') != std::string::npos || s == "%laneid" || s.compare(0, 9, "%lanemask") == 0) {
        k.specials[s] = k.registers;
      }
      return {names_[s] = k.registers++, 0};
    }
    if (s[0] == '0' && s.size() > 2 && (s[1] == 'f' || s[1] == 'd')) return {0, std::strtoull(&s[2], nullptr, 16)};
    if (s[0] == '-') return {0, uint64_t(std::strtoll(s.c_str(), nullptr, 0))};
    if (s[0] >= '0' && s[0] <= '9') return {0, std::strtoull(s.c_str(), nullptr, 0)};
    const auto symbol = symbols_.find(s.find("hn_dynamic_shared") == std::string::npos ? s : "hn_dynamic_shared");
    if (symbol == symbols_.end()) throw Error("ptx: " + k.name + ": no symbol " + s);
    return {0, symbol->second};
  }

  std::string text_;
  std::map<std::string, uint64_t> symbols_;  // addresses of parameters, places in shared memory
  std::map<std::string, int> names_;         // of registers
  std::map<std::string, size_t> labels_;
};

}  // namespace ptx
