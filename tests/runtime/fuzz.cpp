// fuzz FILE COUNT [SEED]: COUNT changed copies of a network's file, read and run. Each is a network, or an error in one
// sentence; the memory of the process is bounded, and so is the time of each.
//
// Most copies get a checksum that is right, so that what comes after it is tried.
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "error.h"
#include "network.h"
#include "sha256.h"

using namespace hiddennet::runtime;

namespace {

constexpr size_t kMemory = size_t(6) << 30;  // bytes that the process may ask for
constexpr double kMostOperations = 1e8;      // of a network that is run, not only read

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

size_t below(Random& random, size_t n) { return n == 0 ? 0 : size_t(random() % n); }

uint64_t table_size(const Bytes& data) {
  uint64_t size = 0;
  std::memcpy(&size, data.data(), 8);
  return size;
}

// Another text for data[at, at + count), inside the table, whose length is kept right.
void replace(Bytes& data, size_t at, size_t count, const std::string& text) {
  const uint64_t size = table_size(data) - count + text.size();
  data.erase(data.begin() + long(at), data.begin() + long(at + count));
  data.insert(data.begin() + long(at), text.begin(), text.end());
  std::memcpy(data.data(), &size, 8);
}

bool digit(uint8_t c) { return c >= '0' && c <= '9'; }

// A number of the table becomes another one.
void change_number(Bytes& data, Random& random) {
  static const std::vector<std::string> kNumbers = {"0",
                                                    "1",
                                                    "2",
                                                    "3",
                                                    "7",
                                                    "8",
                                                    "16",
                                                    "63",
                                                    "64",
                                                    "255",
                                                    "256",
                                                    "1000",
                                                    "65536",
                                                    "16777216",
                                                    "268435456",
                                                    "2147483647",
                                                    "2147483648",
                                                    "4294967296",
                                                    "9223372036854775807",
                                                    "9223372036854775808",
                                                    "-1",
                                                    "-2147483649",
                                                    "1e308",
                                                    "1e-320",
                                                    "0.5",
                                                    "-0.0",
                                                    "1e999",
                                                    "null",
                                                    "true",
                                                    "[]",
                                                    "{}",
                                                    "\\\"\\\""};
  const size_t end = 8 + table_size(data);
  size_t at = 8 + below(random, end - 8);
  while (at < end && !digit(data[at])) ++at;
  size_t last = at;
  while (last < end && digit(data[last])) ++last;
  if (at < end) replace(data, at, last - at, kNumbers[below(random, kNumbers.size())]);
}

void change_text(Bytes& data, Random& random) {
  const size_t end = 8 + table_size(data), at = 8 + below(random, end - 8);
  const size_t count = std::min(below(random, 24), end - at);
  const size_t from = 8 + below(random, end - 8 - count);
  const std::string other(data.begin() + long(from), data.begin() + long(from + count));
  switch (below(random, 4)) {
    case 0: return replace(data, at, count, "");
    case 1: return replace(data, at, count, other);
    case 2: return replace(data, at, 0, other);
    default: return replace(data, at, 0, std::string(1 + below(random, 300), "[{\"\\,:0"[below(random, 7)]));
  }
}

// Two words of the graph change places: operations, names of layers and tensors.
void swap_words(Bytes& data, Random& random) {
  static const std::vector<std::string> kWords = {"conv",     "linear",       "norm",
                                                  "add",      "multiply",     "concat",
                                                  "max_pool", "average_pool", "adaptive_max_pool",
                                                  "reshape",  "slice",        "pad",
                                                  "softmax",  "log_softmax",  "activation",
                                                  "scale",    "constant",     "instance_norm",
                                                  "signs",    "coded",        "normal",
                                                  "stored",   "redrawn",      "expectation",
                                                  "values",   "mask_bits",    "layer",
                                                  "tensor",   "weight",       "bias",
                                                  "input"};
  const std::string from = "\\\"" + kWords[below(random, kWords.size())] + "\\\"";
  const std::string to = "\\\"" + kWords[below(random, kWords.size())] + "\\\"";
  const std::string text(data.begin() + 8, data.begin() + long(8 + table_size(data)));
  const size_t start = below(random, text.size()), found = text.find(from, start);
  if (found != text.npos) replace(data, 8 + found, from.size(), to);
}

// A node of the graph becomes one that reads and makes another number of pixels, whatever comes in.
void change_window(Bytes& data, Random& random) {
  static const std::vector<std::string> kNodes = {R"({\"op\":\"adaptive_average_pool\",\"size\":[3,2],)",
                                                  R"({\"op\":\"adaptive_max_pool\",\"size\":[1,5],)",
                                                  R"({\"op\":\"max_pool\",\"kernel\":[4,1],\"pads\":[2,0,2,0],)",
                                                  R"({\"op\":\"average_pool\",\"kernel\":[2,2],\"pads\":[1,1,1,1],)",
                                                  R"({\"op\":\"pad\",\"pads\":[0,3,1,-1],)",
                                                  R"({\"op\":\"conv\",\"pads\":[2,0,2,0],)"};
  static const std::string kBegin = R"({\"op\":\")", kEnd = R"(\",)";
  const std::string text(data.begin() + 8, data.begin() + long(8 + table_size(data)));
  std::vector<size_t> nodes;
  for (size_t at = text.find(kBegin); at != text.npos; at = text.find(kBegin, at + 1)) nodes.push_back(at);
  if (nodes.empty()) return;
  const size_t found = nodes[below(random, nodes.size())], last = text.find(kEnd, found + kBegin.size());
  if (last == text.npos) return;
  replace(data, 8 + found, last + kEnd.size() - found, kNodes[below(random, kNodes.size())]);
}

void change_bytes(Bytes& data, Random& random) {
  const size_t begin = below(random, 2) == 0 ? 0 : size_t(8 + table_size(data)), count = 1 + below(random, 8);
  if (begin >= data.size()) return;
  for (size_t i = 0; i < count; ++i) data[begin + below(random, data.size() - begin)] = uint8_t(random());
}

bool well_formed(const Bytes& data) {
  return data.size() > 16 && table_size(data) > 2 && table_size(data) <= data.size() - 8;
}

void set_sum(Bytes& data) {
  const std::string key = "\\\"checksum\\\":\\\"";
  const auto place = std::search(data.begin(), data.end(), key.begin(), key.end());
  if (size_t(data.end() - place) < key.size() + 64) return;
  const auto digits = place + long(key.size());
  std::fill(digits, digits + 64, uint8_t('0'));
  Sha256 sum;
  sum.update(data.data(), data.size());
  const std::string hex = sum.hex();
  std::copy(hex.begin(), hex.end(), digits);
}

Bytes changed(const Bytes& whole, Random& random) {
  Bytes data = whole;
  const size_t changes = 1 + below(random, 3);
  for (size_t i = 0; i < changes && well_formed(data); ++i) {
    switch (below(random, 9)) {
      case 0: change_bytes(data, random); break;
      case 1: data.resize(below(random, data.size())); break;
      case 2: change_text(data, random); break;
      case 3:
      case 4: swap_words(data, random); break;
      case 5: change_window(data, random); break;
      default: change_number(data, random);
    }
  }
  if (data.size() > 8 && below(random, 20) != 0) set_sum(data);
  return data;
}

enum class End { refused, read, ran };

// The numbers of a value of which callers hear the dimensions alone, as hn_output_shape() gives them.
size_t told(const Shape& shape) {
  const int64_t height = shape.rank == 4 ? shape.height : 1, width = shape.rank > 2 ? shape.width : 1;
  if (shape.channels * height * width != shape.size())
    throw std::runtime_error("a shape leaves out some of its numbers");
  return size_t(shape.size());
}

// Throws what is no sentence of ours.
End attempt(Bytes data) {
  try {
    Network network(File(std::move(data), "the file"), 1, Bf16::off);
    if (!(network.operations() < kMostOperations)) return End::read;
    const std::vector<float> x(2 * told(network.input_shape()), 0.5f);
    std::vector<float> y(2 * told(network.output_shape()));
    network.run(x.data(), 2, Layout::nchw_f32, y.data());
    return End::ran;
  } catch (const Error& error) {
    const std::string text = error.what();
    if (text.rfind("hiddennet.runtime: expected", 0) != 0 || text.size() > 600) throw std::runtime_error(text);
  } catch (const std::bad_alloc&) {
  }
  return End::refused;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: fuzz FILE COUNT [SEED]\n"), 2;
  setenv("HIDDENNET_PLANS", "fixed", 1);
#if !defined(__SANITIZE_ADDRESS__)
  const rlimit limit{kMemory, kMemory};
  setrlimit(RLIMIT_AS, &limit);
#endif
  std::ifstream file(argv[1], std::ios::binary);
  const Bytes whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const long count = std::atol(argv[2]);
  const uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  if (attempt(whole) != End::ran) return std::fprintf(stderr, "fuzz: %s itself does not run\n", argv[1]), 1;
  long ends[3] = {};
  for (long i = 0; i < count; ++i) {
    Random random(seed * 1000003 + uint64_t(i));
    try {
      ++ends[int(attempt(changed(whole, random)))];
    } catch (const std::exception& error) {
      return std::fprintf(stderr, "fuzz: change %ld of seed %llu: %s\n", i, (unsigned long long)seed, error.what()), 1;
    }
  }
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  std::printf("%ld changed files: %ld refused, %ld read, %ld ran; at most %ld MB\n", count, ends[0], ends[1], ends[2],
              used.ru_maxrss / 1024);
  return ends[2] == 0;
}
