// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "core/types.hpp"
#include "parallel/channel.hpp"
#include "parallel/traffic.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

namespace qnext {

/// The bytes of a contiguous view.
struct Buffer {
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
  bool on_host = true;
};

template <class View>
Buffer buffer_of(const View& view) {
  require(view.span_is_contiguous(), view.label() + ": a message is contiguous");
  using Value = typename View::non_const_value_type;
  return {reinterpret_cast<std::byte*>(const_cast<Value*>(view.data())),
          static_cast<std::int64_t>(view.size() * sizeof(Value)),
          Kokkos::SpaceAccessibility<Kokkos::HostSpace, typename View::memory_space>::accessible};
}

/// A buffer that goes to, or comes from, one rank.
struct Parcel {
  int rank;
  Buffer buffer;
};

/// Messages that another call started. Their memory is theirs until wait returns, which also ends
/// those of an earlier one that a new one replaces.
class Transfer {
 public:
  struct State;

  Transfer();
  explicit Transfer(std::unique_ptr<State> state);
  Transfer(Transfer&& other) noexcept;
  Transfer& operator=(Transfer&& other);
  ~Transfer();

  void wait();

  /// Moves the messages on: MPI, which has no thread of its own, does it in calls alone. Whether
  /// all have arrived, and wait has nothing to do.
  bool progress();

 private:
  std::unique_ptr<State> state_;  // null: nothing is under way
};

/// A group of ranks and the place of this one among them. A copy means the same group. Every call
/// but the questions is made by all ranks of the group in the same order.
///
/// Only numbers whose sum has no order are summed here: whole ones. Device memory is waited for and
/// handed to MPI where MPI takes it, else it goes through pinned memory of the host.
class Communicator {
 public:
  /// This rank alone.
  Communicator() : Communicator(channel_alone()) {}
  explicit Communicator(std::shared_ptr<const Channel> channel);

  int rank() const { return channel_->rank(); }
  int ranks() const { return channel_->ranks(); }
  bool first() const { return rank() == 0; }

  /// For libraries that want their own handle of the group.
  const Channel& channel() const { return *channel_; }

  /// The ranks that name the same colour, in the order of this group or of their keys.
  Communicator split(int colour) const { return split(colour, rank()); }
  Communicator split(int colour, int key) const;

  /// The same group under a name, which its traffic is counted by.
  Communicator named(std::string name) const;

  /// The same group, whose device memory goes straight to MPI or not, whatever MPI says of itself.
  Communicator with_device_memory(bool straight) const;
  bool device_memory_goes_straight() const { return straight_; }

  /// Nobody goes on before all are here.
  void barrier() const;

  /// The view of `root` in the views of all.
  template <class View>
  void broadcast(const View& view, int root) const {
    static_assert(!std::is_const_v<typename View::value_type>);
    broadcast_bytes(buffer_of(view), root);
  }
  void broadcast(std::string& text, int root) const;

  /// The numbers of all ranks in their order; each may have another count.
  template <class T>
  std::vector<T> all_gather(const std::vector<T>& mine) const;

  /// `whole` is cut at borders[1], borders[2], ... (in elements); each rank has filled its own part
  /// and gets those of the others.
  template <class View>
  void all_gather_parts(const View& whole, const std::vector<std::int64_t>& borders) const {
    static_assert(View::rank == 1 && !std::is_const_v<typename View::value_type>);
    all_gather_parts(buffer_of(whole), sizeof(typename View::value_type), borders);
  }

  /// The same without waiting, for elements of so many bytes. The own part may be read meanwhile.
  [[nodiscard]] Transfer start_gather(const Tensor<std::byte, 1>& whole, std::int64_t size,
                                      const std::vector<std::int64_t>& borders) const;

  /// Each number becomes the sum, or the largest, of all ranks.
  void sum(std::vector<std::int64_t>& values) const;
  void maximum(std::vector<std::int64_t>& values) const;

  /// The same for whole numbers below 2^53 that are kept as double.
  void sum_whole(const Tensor<double, 2>& counts) const;

  template <class View>
  void send(const View& view, int to) const {
    exchange({{to, buffer_of(view)}}, {});
  }
  template <class View>
  void receive(const View& view, int from) const {
    static_assert(!std::is_const_v<typename View::value_type>);
    exchange({}, {{from, buffer_of(view)}});
  }

  /// The first counts[0] elements of `from` go to rank 0, the next counts[1] to rank 1, ...; `to`
  /// is filled in the same way by what the ranks send.
  template <class View>
  void all_to_all(const View& from, const std::vector<std::int64_t>& send_counts, const View& to,
                  const std::vector<std::int64_t>& receive_counts) const {
    static_assert(!std::is_const_v<typename View::value_type>);
    constexpr auto size = static_cast<std::int64_t>(sizeof(typename View::value_type));
    exchange(parcels(buffer_of(from), size, send_counts),
             parcels(buffer_of(to), size, receive_counts));
  }

  /// Sends and receives at once. Parcels between two ranks arrive in the order of the lists. Only
  /// the ranks that are named take part.
  void exchange(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) const;

  /// The same without waiting. Messages between two ranks arrive in the order in which they were
  /// started.
  [[nodiscard]] Transfer start(const std::vector<Parcel>& sends,
                               const std::vector<Parcel>& receives) const;

  /// Of this group and all that it was split from or into.
  const Traffic& traffic() const { return *traffic_; }

 private:
  std::unique_ptr<Transfer::State> start_messages(const std::vector<Parcel>& sends,
                                                  const std::vector<Parcel>& receives) const;
  std::int64_t bytes_to_others(const std::vector<Parcel>& sends) const;
  void broadcast_bytes(const Buffer& buffer, int root) const;
  struct Gather {
    std::vector<Parcel> sends, receives;
  };
  Gather gather_of(const Buffer& whole, std::int64_t size,
                   const std::vector<std::int64_t>& borders) const;
  void all_gather_parts(const Buffer& whole, std::int64_t size,
                        const std::vector<std::int64_t>& borders) const;
  static std::vector<Parcel> parcels(const Buffer& buffer, std::int64_t size,
                                     const std::vector<std::int64_t>& counts);
  bool needs_stage(const Buffer& buffer) const { return !buffer.on_host && !straight_; }

  std::shared_ptr<const Channel> channel_;
  std::shared_ptr<Traffic> traffic_;
  std::string name_ = "job";
  bool straight_ = false;
};

template <class T>
std::vector<T> Communicator::all_gather(const std::vector<T>& mine) const {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<std::int64_t> counts(ranks());
  const auto count = static_cast<std::int64_t>(mine.size());
  {
    const Traffic::Call call(*traffic_, name_, "counts", sizeof(count));
    channel_->all_gather(count, counts.data());
  }
  std::vector<std::int64_t> borders(ranks() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), borders.begin() + 1);
  std::vector<T> all(borders.back());
  std::copy(mine.begin(), mine.end(), all.begin() + borders[rank()]);
  all_gather_parts(HostTensor<T, 1>(all.data(), all.size()), borders);
  return all;
}

}  // namespace qnext
