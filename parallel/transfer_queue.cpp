// SPDX-License-Identifier: Apache-2.0
#include "parallel/transfer_queue.hpp"

namespace qnext {

std::int64_t TransferQueue::add(Job job) {
  jobs_.push_back(std::move(job));
  ++added_;
  start_next();
  return added_ - 1;
}

void TransferQueue::start_next() {
  for (; started_ < added_ && started_ - ended_ < slots_; ++started_) {
    under_way_.push_back(jobs_[started_ - ended_].start(static_cast<int>(started_ % slots_)));
  }
}

void TransferQueue::end_first() {
  under_way_.pop_front();
  const Job job = std::move(jobs_.front());
  jobs_.pop_front();
  if (job.end) {
    job.end(static_cast<int>(ended_ % slots_));
  }
  ++ended_;
}

void TransferQueue::progress() {
  while (!under_way_.empty() && under_way_.front().progress()) {
    end_first();
    start_next();
  }
}

void TransferQueue::wait(std::int64_t job) {
  while (ended_ <= job) {
    under_way_.front().wait();
    end_first();
    start_next();
  }
}

}  // namespace qnext
