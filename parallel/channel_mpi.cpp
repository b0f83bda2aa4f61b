// SPDX-License-Identifier: Apache-2.0
#include "parallel/channel_mpi.hpp"

#include "core/require.hpp"

#if defined(OPEN_MPI)
#include <mpi-ext.h>
#endif

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <string>

namespace qnext {
namespace {

// MPI counts in int: longer messages go in pieces.
constexpr std::int64_t largest_piece = std::int64_t{1} << 30;

bool device_memory_is_taken() {
  bool taken = false;
#if defined(MPIX_CUDA_AWARE_SUPPORT)
  taken = taken || MPIX_Query_cuda_support() == 1;
#endif
#if defined(MPIX_ROCM_AWARE_SUPPORT)
  taken = taken || MPIX_Query_rocm_support() == 1;
#endif
  return taken;
}

class Requests : public Underway {
 public:
  MPI_Request* add() { return &requests_.emplace_back(); }
  void wait() override {
    QNEXT_MPI(
        MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE));
  }
  bool arrived() override {
    int all = 0;
    QNEXT_MPI(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &all,
                          MPI_STATUSES_IGNORE));
    return all != 0;
  }

 private:
  std::vector<MPI_Request> requests_;
};

class ChannelMpi : public Channel {
 public:
  explicit ChannelMpi(MPI_Comm communicator) : communicator_(communicator) {
    QNEXT_MPI(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN));
    QNEXT_MPI(MPI_Comm_rank(communicator_, &rank_));
    QNEXT_MPI(MPI_Comm_size(communicator_, &ranks_));
  }
  // Freeing is for all ranks together; one that an exception throws out does not wait for the rest.
  ~ChannelMpi() override {
    if (std::uncaught_exceptions() == 0) {
      MPI_Comm_free(&communicator_);
    }
  }
  ChannelMpi(const ChannelMpi&) = delete;
  ChannelMpi& operator=(const ChannelMpi&) = delete;

  MPI_Comm communicator() const { return communicator_; }
  int rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  bool takes_device_memory() const override { return device_memory_is_taken(); }

  std::shared_ptr<const Channel> split(int colour, int key) const override {
    MPI_Comm part;
    QNEXT_MPI(MPI_Comm_split(communicator_, colour, key, &part));
    return std::make_shared<ChannelMpi>(part);
  }

  void barrier() const override { QNEXT_MPI(MPI_Barrier(communicator_)); }

  void broadcast(void* data, std::int64_t bytes, int root) const override {
    for (std::int64_t begin = 0; begin < bytes; begin += largest_piece) {
      const int count = static_cast<int>(std::min(largest_piece, bytes - begin));
      QNEXT_MPI(MPI_Bcast(static_cast<char*>(data) + begin, count, MPI_BYTE, root, communicator_));
    }
  }

  void all_gather(std::int64_t mine, std::int64_t* all) const override {
    QNEXT_MPI(MPI_Allgather(&mine, 1, MPI_INT64_T, all, 1, MPI_INT64_T, communicator_));
  }

  void sum(std::int64_t* values, int count) const override {
    QNEXT_MPI(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, MPI_SUM, communicator_));
  }
  void maximum(std::int64_t* values, int count) const override {
    QNEXT_MPI(MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, MPI_MAX, communicator_));
  }

  void exchange(const std::vector<Message>& sends,
                const std::vector<Message>& receives) const override {
    start(sends, receives)->wait();
  }

  std::unique_ptr<Underway> start(const std::vector<Message>& sends,
                                  const std::vector<Message>& receives) const override {
    auto requests = std::make_unique<Requests>();
    for_each_piece(receives, [&](const Message& piece) {
      QNEXT_MPI(MPI_Irecv(piece.data, static_cast<int>(piece.bytes), MPI_BYTE, piece.rank, 0,
                          communicator_, requests->add()));
    });
    for_each_piece(sends, [&](const Message& piece) {
      QNEXT_MPI(MPI_Isend(piece.data, static_cast<int>(piece.bytes), MPI_BYTE, piece.rank, 0,
                          communicator_, requests->add()));
    });
    return requests;
  }

 private:
  // An empty message is none: both sides know its length.
  template <class Visit>
  static void for_each_piece(const std::vector<Message>& messages, const Visit& visit) {
    for (const Message& message : messages) {
      for (std::int64_t begin = 0; begin < message.bytes; begin += largest_piece) {
        visit(Message{message.rank, static_cast<char*>(message.data) + begin,
                      std::min(largest_piece, message.bytes - begin)});
      }
    }
  }

  MPI_Comm communicator_;
  int rank_ = 0;
  int ranks_ = 1;
};

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) {
    return;
  }
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw EnvironmentError(std::string(call, std::strcspn(call, "(")) + ": " +
                         std::string(text, length));
}

std::shared_ptr<const Channel> channel_of(MPI_Comm communicator) {
  MPI_Comm own;
  QNEXT_MPI(MPI_Comm_dup(communicator, &own));
  return std::make_shared<ChannelMpi>(own);
}

MPI_Comm communicator_of(const Channel& channel) {
  const auto* const of_mpi = dynamic_cast<const ChannelMpi*>(&channel);
  return of_mpi != nullptr ? of_mpi->communicator() : MPI_COMM_SELF;
}

}  // namespace qnext
