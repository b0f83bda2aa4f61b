// SPDX-License-Identifier: Apache-2.0
#include "parallel/weight_gather.hpp"

#include <utility>

namespace qnext {

WeightGather::WeightGather(const ParameterTable& table, std::vector<Shards> shards)
    : table_(table), shards_(std::move(shards)), job_(table.groups().size(), -1) {}

void WeightGather::start(std::size_t g) {
  const Shards& shards = shards_[g];
  if (shards.over.ranks() == 1) {
    return;
  }
  const auto& group = table_.groups()[g];
  TransferQueue::Job job;
  job.start = [&](int) {
    return shards.over.start_gather(group.values, size_of(group.type), shards.borders);
  };
  job_[g] = queue_.add(std::move(job));
}

void WeightGather::wait_for_rows(std::size_t end) {
  queue_.progress();
  for (std::size_t g = 0; g < job_.size() && table_.groups()[g].first_row < end; ++g) {
    if (job_[g] >= 0) {
      queue_.wait(job_[g]);
      job_[g] = -1;
    }
  }
}

}  // namespace qnext
