// SPDX-License-Identifier: Apache-2.0
#include "parallel/communicator.hpp"

#include "core/fence.hpp"
#include "core/pinned.hpp"

namespace qnext {
namespace {

// Memory of the host in the place of memory of the device for the time of one message.
class Stage {
 public:
  using Pinned = Kokkos::View<std::byte*, PinnedSpace>;

  explicit Stage(const Buffer& device)
      : device_(device.data, device.bytes),
        host_(Kokkos::view_alloc("message", Kokkos::WithoutInitializing), device.bytes) {}

  void fill() const { Kokkos::deep_copy(host_, device_); }
  void empty() const { Kokkos::deep_copy(device_, host_); }
  void* data() const { return host_.data(); }

 private:
  Tensor<std::byte, 1> device_;
  Pinned host_;
};

// In front of the call whose time is counted: kernels are no message.
void wait_for_kernels(const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) {
  const auto on_device = [](const Parcel& parcel) { return !parcel.buffer.on_host; };
  if (std::any_of(sends.begin(), sends.end(), on_device) ||
      std::any_of(receives.begin(), receives.end(), on_device)) {
    fence(Exec{}, "communicator: another rank is sent what kernels write");
  }
}

}  // namespace

struct Transfer::State {
  std::shared_ptr<Traffic> traffic;
  std::string name;  // of the group
  std::unique_ptr<Underway> underway;
  std::vector<Stage> sent, received;

  void wait() {
    if (underway) {
      underway->wait();
      underway.reset();
    }
    for (const Stage& stage : received) {
      stage.empty();
    }
    received.clear();
  }
};

Transfer::Transfer() = default;
Transfer::Transfer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Transfer::Transfer(Transfer&& other) noexcept = default;
Transfer& Transfer::operator=(Transfer&& other) {
  wait();
  state_ = std::move(other.state_);
  return *this;
}
// What an exception throws out does not wait for others: the job ends.
Transfer::~Transfer() = default;

void Transfer::wait() {
  if (state_) {
    {
      const Traffic::Inside call(*state_->traffic, state_->name, "wait");
      state_->wait();
    }
    state_->traffic->arrives(state_->name);
    state_.reset();
  }
}

bool Transfer::progress() {
  if (!state_) {
    return true;
  }
  bool arrived = false;
  {
    const Traffic::Inside call(*state_->traffic, state_->name, "progress");
    arrived = !state_->underway || state_->underway->arrived();
  }
  if (arrived) {
    wait();
  }
  return arrived;
}

Communicator::Communicator(std::shared_ptr<const Channel> channel)
    : channel_(std::move(channel)),
      traffic_(std::make_shared<Traffic>()),
      straight_(channel_->takes_device_memory()) {}

Communicator Communicator::split(int colour, int key) const {
  Communicator part = *this;
  part.channel_ = channel_->split(colour, key);
  return part;
}

Communicator Communicator::named(std::string name) const {
  Communicator same = *this;
  same.name_ = std::move(name);
  return same;
}

Communicator Communicator::with_device_memory(bool straight) const {
  Communicator same = *this;
  same.straight_ = straight;
  return same;
}

void Communicator::barrier() const {
  const Traffic::Call call(*traffic_, name_, "barrier", 0);
  channel_->barrier();
}

void Communicator::broadcast_bytes(const Buffer& buffer, int root) const {
  wait_for_kernels({{root, buffer}}, {});
  const Traffic::Call call(*traffic_, name_, "broadcast",
                           rank() == root && ranks() > 1 ? buffer.bytes : 0);
  if (!needs_stage(buffer)) {
    channel_->broadcast(buffer.data, buffer.bytes, root);
    return;
  }
  const Stage stage(buffer);
  stage.fill();
  channel_->broadcast(stage.data(), buffer.bytes, root);
  stage.empty();
}

void Communicator::broadcast(std::string& text, int root) const {
  std::vector<std::int64_t> length{rank() == root ? static_cast<std::int64_t>(text.size()) : 0};
  maximum(length);
  text.resize(length.front());
  broadcast(HostTensor<char, 1>(text.data(), text.size()), root);
}

void Communicator::sum(std::vector<std::int64_t>& values) const {
  const Traffic::Call call(*traffic_, name_, "sum",
                           static_cast<std::int64_t>(values.size() * sizeof(std::int64_t)));
  channel_->sum(values.data(), static_cast<int>(values.size()));
}

void Communicator::maximum(std::vector<std::int64_t>& values) const {
  const Traffic::Call call(*traffic_, name_, "maximum",
                           static_cast<std::int64_t>(values.size() * sizeof(std::int64_t)));
  channel_->maximum(values.data(), static_cast<int>(values.size()));
}

void Communicator::sum_whole(const Tensor<double, 2>& counts) const {
  if (ranks() == 1 || counts.size() == 0) {
    return;
  }
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), counts);
  std::vector<std::int64_t> values(host.data(), host.data() + host.size());
  sum(values);
  std::copy(values.begin(), values.end(), host.data());
  Kokkos::deep_copy(counts, host);
}

std::int64_t Communicator::bytes_to_others(const std::vector<Parcel>& sends) const {
  std::int64_t bytes = 0;
  for (const Parcel& parcel : sends) {
    bytes += parcel.rank == rank() ? 0 : parcel.buffer.bytes;
  }
  return bytes;
}

std::unique_ptr<Transfer::State> Communicator::start_messages(
    const std::vector<Parcel>& sends, const std::vector<Parcel>& receives) const {
  auto state = std::make_unique<Transfer::State>();
  state->traffic = traffic_;
  state->name = name_;
  const auto message_of = [&](const Parcel& parcel, std::vector<Stage>& stages) {
    const Buffer& buffer = parcel.buffer;
    if (!needs_stage(buffer)) {
      return Message{parcel.rank, buffer.data, buffer.bytes};
    }
    stages.emplace_back(buffer);
    return Message{parcel.rank, stages.back().data(), buffer.bytes};
  };
  std::vector<Message> outgoing, incoming;
  for (const Parcel& parcel : sends) {
    outgoing.push_back(message_of(parcel, state->sent));
  }
  for (const Parcel& parcel : receives) {
    incoming.push_back(message_of(parcel, state->received));
  }
  for (const Stage& stage : state->sent) {
    stage.fill();
  }
  state->underway = channel_->start(outgoing, incoming);
  return state;
}

void Communicator::exchange(const std::vector<Parcel>& sends,
                            const std::vector<Parcel>& receives) const {
  wait_for_kernels(sends, receives);
  const Traffic::Call call(*traffic_, name_, "exchange", bytes_to_others(sends));
  start_messages(sends, receives)->wait();
}

Transfer Communicator::start(const std::vector<Parcel>& sends,
                             const std::vector<Parcel>& receives) const {
  wait_for_kernels(sends, receives);
  traffic_->count(name_, "send", bytes_to_others(sends));
  traffic_->departs(name_);
  const Traffic::Inside call(*traffic_, name_, "send");
  return Transfer(start_messages(sends, receives));
}

std::vector<Parcel> Communicator::parcels(const Buffer& buffer, std::int64_t size,
                                          const std::vector<std::int64_t>& counts) {
  std::vector<Parcel> parcels;
  std::int64_t begin = 0;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    const std::int64_t bytes = counts[r] * size;
    parcels.push_back({static_cast<int>(r), {buffer.data + begin, bytes, buffer.on_host}});
    begin += bytes;
  }
  require(begin <= buffer.bytes, "all_to_all: the counts are more than the buffer holds");
  return parcels;
}

// Everybody sends its part to everybody: each part crosses the network as often as in a ring, and
// all of them at once.
Communicator::Gather Communicator::gather_of(const Buffer& whole, std::int64_t size,
                                             const std::vector<std::int64_t>& borders) const {
  require(static_cast<int>(borders.size()) == ranks() + 1,
          "all_gather_parts: a part for each rank");
  const auto part = [&](int r) {
    return Buffer{whole.data + borders[r] * size, (borders[r + 1] - borders[r]) * size,
                  whole.on_host};
  };
  Gather gather;
  for (int step = 1; step < ranks(); ++step) {
    const int to = (rank() + step) % ranks();
    const int from = (rank() + ranks() - step) % ranks();
    gather.sends.push_back({to, part(rank())});
    gather.receives.push_back({from, part(from)});
  }
  return gather;
}

void Communicator::all_gather_parts(const Buffer& whole, std::int64_t size,
                                    const std::vector<std::int64_t>& borders) const {
  const Gather gather = gather_of(whole, size, borders);
  exchange(gather.sends, gather.receives);
}

Transfer Communicator::start_gather(const Tensor<std::byte, 1>& whole, std::int64_t size,
                                    const std::vector<std::int64_t>& borders) const {
  const Gather gather = gather_of(buffer_of(whole), size, borders);
  return start(gather.sends, gather.receives);
}

}  // namespace qnext
