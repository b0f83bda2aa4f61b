// SPDX-License-Identifier: Apache-2.0
#include "app/restart.hpp"

#include "core/require.hpp"
#include "io/checkpoint_folder.hpp"

#include <fmt/format.h>

#include <filesystem>

namespace qnext {
namespace {

TensorFamily family(const char* name, const AdamW& optimizer,
                    Tensor<std::byte, 1> AdamW::Buffers::*numbers) {
  TensorFamily family;
  family.name = name;
  for (std::size_t g = 0; g < optimizer.buffers().size(); ++g) {
    const AdamW::Buffers& buffers = optimizer.buffers()[g];
    const bool held = !buffers.frozen && (numbers != &AdamW::Buffers::master || buffers.has_master);
    const Shards& shards = optimizer.shards()[g];
    family.buffers.push_back(
        {buffers.type, buffers.*numbers, held ? &shards : nullptr, shards.begin()});
  }
  return family;
}

}  // namespace

std::vector<TensorFamily> optimizer_families(const AdamW& optimizer) {
  return {family("optimizer/first_moment", optimizer, &AdamW::Buffers::first_moment),
          family("optimizer/second_moment", optimizer, &AdamW::Buffers::second_moment),
          family("optimizer/master", optimizer, &AdamW::Buffers::master)};
}

CheckpointContent restart_content(const RunState& state, const Tensor<double, 2>& previous_counts) {
  CheckpointContent content;
  content.step = state.step;
  Record& progress = content.record("progress");
  progress.set("updates", state.updates);
  progress.set("tokens", state.tokens);
  progress.set("seconds", state.seconds);
  progress.set("best_loss", state.best_loss);
  progress.set("best_step", state.best_step);
  progress.set("usual_norms",
               std::vector<double>(state.usual_norms.begin(), state.usual_norms.end()));
  Record& data = content.record("data");
  data.set("sequences", state.cursor.sequences);
  data.set("fingerprint", static_cast<std::int64_t>(state.cursor.fingerprint));
  if (previous_counts.size() > 0) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), previous_counts);
    content.record("balance_loss")
        .set("previous_counts", std::vector<double>(host.data(), host.data() + host.size()));
  }
  return content;
}

RunState restart_state(const CheckpointContent& content, const Tensor<double, 2>& previous_counts) {
  RunState state;
  state.step = content.step;
  const Record& progress = content.record("progress");
  state.updates = progress.get<std::int64_t>("updates");
  state.tokens = progress.get<std::int64_t>("tokens");
  state.seconds = progress.get<double>("seconds");
  state.best_loss = progress.get<double>("best_loss");
  state.best_step = progress.get<std::int64_t>("best_step");
  const auto& norms = progress.get<std::vector<double>>("usual_norms");
  state.usual_norms.assign(norms.begin(), norms.end());
  const Record& data = content.record("data");
  state.cursor.sequences = data.get<std::int64_t>("sequences");
  state.cursor.fingerprint = static_cast<std::uint64_t>(data.get<std::int64_t>("fingerprint"));
  if (previous_counts.size() > 0) {
    const auto& counts = content.record("balance_loss").get<std::vector<double>>("previous_counts");
    if (counts.size() != previous_counts.size()) {
      throw InputError(fmt::format(
          "balance_loss.previous_counts: the checkpoint has {} numbers, this model wants {}",
          counts.size(), previous_counts.size()));
    }
    Kokkos::deep_copy(previous_counts,
                      HostTensor<const double, 2>(counts.data(), previous_counts.extent(0),
                                                  previous_counts.extent(1)));
  }
  return state;
}

std::string checkpoint_of(const std::string& path, const Communicator& world) {
  namespace fs = std::filesystem;
  if (!fs::exists(path)) {
    throw InputError(path + ": there is no such checkpoint or run folder");
  }
  if (!fs::is_directory(path)) {
    return path;
  }
  const fs::path inside = fs::path(path) / "checkpoints";
  const CheckpointFolder::Found found =
      CheckpointFolder(fs::is_directory(inside) ? inside.string() : path, 1).find_newest(world);
  if (found.path.empty()) {
    throw InputError(path + ": the folder holds no whole checkpoint" +
                     (found.refused.empty() ? "" : "; newest: " + found.refused.front().reason));
  }
  return found.path;
}

}  // namespace qnext
