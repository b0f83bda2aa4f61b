// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"
#include "tests/fuzz/target.hpp"

#include <cstring>

namespace qnext::fuzz {
namespace {

std::string file_of(const std::string& header, std::size_t bytes) {
  const std::uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(bytes, '\x3f');
}

}  // namespace

std::vector<std::string> seeds() {
  return {file_of(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                  R"("b.c":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
                  32),
          file_of(R"({"__metadata__":{"format":"pt"},"h":{"dtype":"F16","shape":[1,2,2,1],)"
                  R"("data_offsets":[0,8]},"d":{"dtype":"F64","shape":[],"data_offsets":[8,16]},)"
                  R"("i":{"dtype":"I64","shape":[0],"data_offsets":[16,16]}}   )",
                  16),
          file_of("{}", 0)};
}

std::vector<std::string> words() {
  return {"{",
          "}",
          "[",
          "]",
          ",",
          ":",
          "\"dtype\"",
          "\"shape\"",
          "F8_E4M3",
          "\"BOOL\"",
          "null",
          "1e999",
          "-0",
          "\"a\":{}",
          "\\ud800",
          "data_offsets",
          "\"\"",
          "[[[[[",
          "true",
          "0.5",
          "__metadata__",
          "18446744073709551616"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const fuzz::MemoryFile file;
  file.write(data, size);
  return fuzz::refuse_or_accept([&] {
    const SafetensorsFile tensors(file.path());
    for (const auto& [name, tensor] : tensors.tensors()) {
      std::vector<float> numbers(static_cast<std::size_t>(tensor.elements()));
      convert_elements(tensor, name, 0, tensor.elements(), numbers.data());
    }
  });
}
