// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace qnext {

/// Bytes that go to, or come from, one rank.
struct Message {
  int rank;
  void* data;
  std::int64_t bytes;
};

/// Messages under way: their memory is theirs until wait returns, or arrived is true.
class Underway {
 public:
  virtual ~Underway() = default;
  virtual void wait() = 0;

  /// Moves them on without waiting; whether nothing is left to wait for.
  virtual bool arrived() = 0;
};

/// What a communicator is made of: bytes between the ranks of one group. There is one for MPI and
/// one for a rank alone, which is all that a build without MPI has. Every call is made by all ranks
/// of the group, in the same order.
class Channel {
 public:
  virtual ~Channel() = default;

  virtual int rank() const = 0;
  virtual int ranks() const = 0;

  /// Whether the calls below take addresses of device memory.
  virtual bool takes_device_memory() const = 0;

  /// The ranks of the same colour, ordered by key.
  virtual std::shared_ptr<const Channel> split(int colour, int key) const = 0;

  virtual void barrier() const = 0;
  virtual void broadcast(void* data, std::int64_t bytes, int root) const = 0;

  /// A number of each rank, in their order in `all`.
  virtual void all_gather(std::int64_t mine, std::int64_t* all) const = 0;

  virtual void sum(std::int64_t* values, int count) const = 0;
  virtual void maximum(std::int64_t* values, int count) const = 0;

  /// Sends and receives at once. Messages between two ranks arrive in the order of the lists.
  virtual void exchange(const std::vector<Message>& sends,
                        const std::vector<Message>& receives) const = 0;

  /// The same without waiting; null where nothing is left to wait for.
  virtual std::unique_ptr<Underway> start(const std::vector<Message>& sends,
                                          const std::vector<Message>& receives) const = 0;
};

/// A group of this rank alone.
std::shared_ptr<const Channel> channel_alone();

}  // namespace qnext
