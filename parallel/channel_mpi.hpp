// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/channel.hpp"

#include <mpi.h>

namespace qnext {

/// Throws an EnvironmentError with the sentence of MPI and the name of the call.
void check_mpi(int code, const char* call);

#define QNEXT_MPI(call) ::qnext::check_mpi((call), #call)

/// A duplicate of the communicator, whose errors come back to us.
std::shared_ptr<const Channel> channel_of(MPI_Comm communicator);

/// MPI's handle of a group; of a rank alone, that of the process.
MPI_Comm communicator_of(const Channel& channel);

}  // namespace qnext
