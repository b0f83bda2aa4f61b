// SPDX-License-Identifier: Apache-2.0
#include "parallel/channel_mpi.hpp"
#include "parallel/runtime.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace qnext {
namespace {

// For what all ranks refuse together (a key of the deck) to arrive from the lowest of them. The
// ranks reach it within the differences of their file systems, and the job ends within 30 s.
constexpr std::chrono::seconds patience{2};

std::string first_line(const std::string& text) {
  const auto end = text.find_first_of(",\n");
  return text.substr(0, end);
}

}  // namespace

// A failing rank tells all higher ones, by messages too short to wait for a receiver.
struct Runtime::Alarm {
  MPI_Comm communicator;
  int rank, ranks;

  Alarm() {
    QNEXT_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &communicator));
    QNEXT_MPI(MPI_Comm_rank(communicator, &rank));
    QNEXT_MPI(MPI_Comm_size(communicator, &ranks));
  }
  ~Alarm() { MPI_Comm_free(&communicator); }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  void raise() const {
    for (int higher = rank + 1; higher < ranks; ++higher) {
      MPI_Request ignored;
      MPI_Isend(nullptr, 0, MPI_BYTE, higher, 0, communicator, &ignored);
      MPI_Request_free(&ignored);
    }
  }

  bool was_raised_by_a_lower_rank() const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (rank > 0 && std::chrono::steady_clock::now() < end) {
      int raised = 0;
      MPI_Iprobe(MPI_ANY_SOURCE, 0, communicator, &raised, MPI_STATUS_IGNORE);
      if (raised != 0) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
};

Runtime::Runtime(int& argc, char**& argv) {
  // A program without a launcher needs no daemon beside it, which Open MPI would start and which
  // fails where files or memory are limited.
  setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  alarm_ = std::make_unique<Alarm>();
  world_ = Communicator(channel_of(MPI_COMM_WORLD));
}

Runtime::~Runtime() {
  world_ = Communicator();
  alarm_.reset();
  MPI_Finalize();
}

int Runtime::fail(Status status, const std::string& message) const {
  if (alarm_->ranks == 1) {
    std::fprintf(stderr, "qnext: %s\n", message.c_str());
    return static_cast<int>(status);
  }
  alarm_->raise();
  if (alarm_->was_raised_by_a_lower_rank()) {
    std::this_thread::sleep_for(2 * patience);  // and is ended by it
  } else {
    std::fprintf(stderr, "qnext: rank %d of %d: %s\n", alarm_->rank, alarm_->ranks,
                 message.c_str());
    std::fflush(nullptr);
  }
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(status));
  return static_cast<int>(status);
}

std::string Runtime::library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  return first_line(std::string(text, length));
}

}  // namespace qnext
