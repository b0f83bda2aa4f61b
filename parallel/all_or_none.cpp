// SPDX-License-Identifier: Apache-2.0
#include "parallel/all_or_none.hpp"

#include "core/out_of_memory.hpp"
#include "core/require.hpp"

#include <exception>
#include <string>
#include <vector>

namespace qnext {
namespace {

struct Failure {
  std::exception_ptr error;
  Status status = Status::defect;
  std::string message;
};

Failure failure_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Error& error) {
    return {std::current_exception(), error.status(), error.what()};
  } catch (const std::exception& error) {
    if (is_out_of_memory(error)) {
      return {std::current_exception(), Status::environment, "the machine has no memory left"};
    }
    return {std::current_exception(), Status::defect, error.what()};
  }
}

}  // namespace

void all_or_none(const Communicator& ranks, const std::function<void()>& work) {
  Failure failure = failure_of(work);
  std::vector<std::int64_t> first{failure.error ? ranks.ranks() - ranks.rank() : 0};
  ranks.maximum(first);
  if (first.front() == 0) {
    return;
  }
  const int failed = ranks.ranks() - static_cast<int>(first.front());
  if (failed == ranks.rank()) {
    ranks.broadcast(failure.message, failed);
    ranks.all_gather(std::vector<int>{static_cast<int>(failure.status)});
    std::rethrow_exception(failure.error);
  }
  std::string message;
  ranks.broadcast(message, failed);
  const auto statuses = ranks.all_gather(std::vector<int>{static_cast<int>(failure.status)});
  throw Error(static_cast<Status>(statuses[failed]),
              message + " (on rank " + std::to_string(failed) + ")");
}

}  // namespace qnext
