#include "file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "../base/dtype.h"
#include "error.h"
#include "sha256.h"

namespace hiddennet::runtime {
namespace {

constexpr size_t kPrefix = 8;                    // the length of the table, 64 bits, little endian
constexpr size_t kMostTable = size_t(64) << 20;  // bytes of JSON
constexpr size_t kMostFile = size_t(16) << 30;
constexpr size_t kDigest = 64;
constexpr int64_t kVersion = 3;  // of the artifact's format, the newest that is read
constexpr int64_t kMostElements = int64_t(1) << 40;

size_t bytes_of(const std::string& dtype) {
  struct Size {
    const char* name;
    size_t bytes;
  };
  constexpr Size kSizes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"U8", 1},  {"I8", 1}, {"BOOL", 1},
                             {"I16", 2}, {"U16", 2}, {"I32", 4},  {"U32", 4}, {"I64", 8}, {"U64", 8}};
  for (const Size& size : kSizes) {
    if (dtype == size.name) return size.bytes;
  }
  return 0;
}

}  // namespace

File::File(std::vector<uint8_t> data, const std::string& path) : data_(std::move(data)) {
  uint64_t size = 0;
  if (data_.size() >= kPrefix) std::memcpy(&size, data_.data(), kPrefix);
  if (size < 2 || size > data_.size() - kPrefix || size > kMostTable || data_[kPrefix] != '{') {
    fail("expected a safetensors file at ", path, ", got something else or a truncated one");
  }
  const std::string text(reinterpret_cast<const char*>(data_.data()) + kPrefix, size);
  const Json table = Json::parse(text, "the table of tensors");
  const Json* metadata = table.find("__metadata__");
  const Json* header = metadata == nullptr ? nullptr : metadata->find("hiddennet");
  if (header == nullptr) fail("expected an artifact at ", path, ", got a safetensors file without its header");
  header_ = Json::parse(header->text("the header"), "the header");
  const int64_t version = header_.at("format_version").integer("format_version", 1, INT32_MAX);
  if (version > kVersion) {
    fail("expected format version ", kVersion, " or older in ", path, ", got ", version, "; upgrade hiddennet-runtime");
  }
  check_sum(path);
  const Json* graph = header_.find("graph");
  if (graph == nullptr || graph->is_null()) {
    fail("expected a file that says how its network computes, got the artifact ", path,
         " without a graph; write it with hiddennet.export(model, path, runtime=True)");
  }
  graph_ = *graph;
  read_tensors(table, kPrefix + size, path);
}

File File::open(const std::string& path) {
  struct stat about{};
  if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
    fail("expected a file at ", path, ", got none; check the path");
  }
  if (uint64_t(about.st_size) > kMostFile)
    fail("expected a file below 16 GiB at ", path, ", got ", about.st_size, " bytes");
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail("expected to read ", path, ", got an error of the system (", std::strerror(errno), ")");
  std::vector<uint8_t> data(size_t(about.st_size));
  data.resize(std::fread(data.data(), 1, data.size(), file.get()));
  return {std::move(data), path};
}

void File::check_sum(const std::string& path) const {
  const std::string& wanted = header_.at("checksum").text("checksum");
  const std::string zeros(kDigest, '0');
  size_t at = data_.size();
  if (wanted.size() == kDigest) {
    const char* begin = reinterpret_cast<const char*>(data_.data());
    const void* found = memmem(begin + kPrefix, data_.size() - kPrefix, wanted.data(), kDigest);
    if (found != nullptr) at = size_t(static_cast<const char*>(found) - begin);
  }
  if (at < data_.size()) {
    Sha256 sum;
    sum.update(data_.data(), at);
    sum.update(reinterpret_cast<const uint8_t*>(zeros.data()), kDigest);
    sum.update(data_.data() + at + kDigest, data_.size() - at - kDigest);
    if (sum.hex() == wanted) return;
  }
  fail("expected the contents of ", path,
       " to match its checksum, got a changed or truncated file; export it again or fetch a fresh copy");
}

void File::read_tensors(const Json& table, size_t begin, const std::string& path) {
  const size_t room = data_.size() - begin;
  for (const auto& [name, entry] : table.map("the table of tensors")) {
    if (name == "__metadata__") continue;
    StoredTensor tensor{entry.at("dtype").text("dtype"), {}, 1, nullptr, 0};
    for (const Json& size : entry.at("shape").list("shape")) {
      tensor.shape.push_back(size.integer("shape", 0, kMostElements));
      if (tensor.shape.back() != 0 && tensor.count > kMostElements / tensor.shape.back()) {
        fail("expected tensors that fit into ", path, ", got ", name, " of more elements");
      }
      tensor.count *= tensor.shape.back();
    }
    const auto ends = entry.at("data_offsets").integers("data_offsets", 2, 0, int64_t(room));
    tensor.data = data_.data() + begin + ends[0];
    tensor.bytes = size_t(ends[1] - ends[0]);
    if (ends[1] < ends[0] || bytes_of(tensor.dtype) * size_t(tensor.count) != tensor.bytes) {
      fail("expected ", name, " in ", path, " to have the bytes of its shape, got other; export it again");
    }
    tensors_.emplace(name, std::move(tensor));
  }
}

const StoredTensor* File::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::vector<float> File::floats(const std::string& name, int64_t count) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) fail("expected a tensor ", name, " in the file, got none; export it again");
  if (tensor->count != count) {
    fail("expected ", name, " to have ", count, " elements, got ", tensor->count, "; export the file again");
  }
  std::vector<float> out(size_t(count), 0.0f);
  if (tensor->dtype == "F32") {
    if (count > 0) std::memcpy(out.data(), tensor->data, tensor->bytes);
  } else if (tensor->dtype == "F64") {
    for (size_t i = 0; i < out.size(); ++i) {
      double value;
      std::memcpy(&value, tensor->data + 8 * i, 8);
      out[i] = float(value);
    }
  } else if (tensor->dtype == "F16" || tensor->dtype == "BF16") {
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, tensor->data + 2 * i, 2);
      out[i] = tensor->dtype == "F16" ? hn::from_float16(bits) : hn::from_bfloat16(bits);
    }
  } else {
    fail("expected ", name, " to hold floating point numbers, got ", tensor->dtype, "; export the file again");
  }
  return out;
}

}  // namespace hiddennet::runtime
