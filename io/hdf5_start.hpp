// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// Before MPI_Init: an HDF5 with MPI that starts later tidies up in MPI_Finalize, and (1.10) falls
/// there on a file that a full disk kept it from closing.
void start_hdf5();

}  // namespace qnext
