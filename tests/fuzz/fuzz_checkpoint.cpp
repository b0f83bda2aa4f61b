// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_stream.hpp"
#include "tests/fuzz/target.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

// Bytes of any kind: the gate in front of HDF5 has to stop whatever is not a whole checkpoint.
namespace qnext::fuzz {
namespace {

ParameterTable& table() {
  static ParameterTable table;
  static Weight<float, 1> norm;
  static Weight<bf16, 2> matrix;
  if (table.rows().empty()) {
    table.add({.name = "norm", .shard = Shard::whole({3})}, norm);
    table.add({.name = "matrix", .shard = Shard::whole({2, 3})}, matrix);
  }
  return table;
}

std::string some_checkpoint() {
  const std::string path =
      std::filesystem::temp_directory_path() / ("qnext_fuzz_" + std::to_string(getpid()) + ".h5");
  CheckpointContent content;
  content.given_deck = content.resolved_deck = "run: {name: a}\n";
  content.record("progress").set("updates", std::int64_t{3});
  write_checkpoint_stream(path, content, table(), [](const Parameter& row, const Sink& sink) {
    const std::vector<std::byte> bytes(static_cast<std::size_t>(row.elements()) *
                                       static_cast<std::size_t>(size_of(row.type)));
    sink(bytes);
  });
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::filesystem::remove(path);
  return bytes;
}

}  // namespace

std::vector<std::string> seeds() {
  return {some_checkpoint(), "qnext checkpoint"};
}

std::vector<std::string> words() {
  return {"qnext checkpoint", std::string(8, '\0'), std::string(8, '\xff'), "\x89HDF\r\n\x1a\n"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const fuzz::MemoryFile file;
  file.write(data, size);
  return fuzz::refuse_or_accept([&] {
    check_checkpoint_block(file.path());
    read_checkpoint_content(file.path());
    verify_checkpoint(file.path());
    read_checkpoint_stream(file.path(), fuzz::table(),
                           [](const Parameter&, std::int64_t, std::span<const std::byte>) {});
  });
}
