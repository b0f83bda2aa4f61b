// SPDX-License-Identifier: Apache-2.0
//
// How files are opened, closed and given up.
#include "core/require.hpp"
#include "io/hdf5_file.hpp"
#include "io/hdf5_library.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#if defined(QNEXT_WITH_MPI) && defined(H5_HAVE_PARALLEL)
#include "parallel/channel_mpi.hpp"
#define QNEXT_PARALLEL_HDF5
#endif

namespace qnext {
namespace {

/// Closing a file closes what is open in it. Nothing is written behind our back when a dataset is
/// closed (no sieve buffer). A file system without locks is none the worse.
Hdf5Handle file_access() {
  const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
  H5Pset_sieve_buf_size(list, 0);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(list, true, true);
#endif
  return {list, H5Pclose};
}

/// What describes the data stays in memory until the file is flushed, so that no write of the
/// library's own choice can fail in between, which it does not survive.
void keep_metadata_in_memory(hid_t access) {
  H5AC_cache_config_t config;
  config.version = H5AC__CURR_CACHE_CONFIG_VERSION;
  H5Pget_mdc_config(access, &config);
  config.evictions_enabled = false;
  config.incr_mode = H5C_incr__off;
  config.flash_incr_mode = H5C_flash_incr__off;
  config.decr_mode = H5C_decr__off;
  H5Pset_mdc_config(access, &config);
}

/// Makes sure that the disk takes the whole of a file before the library writes the last of it.
void expect_room(hid_t file, const std::string& path) {
  hsize_t bytes = 0;
  void* handle = nullptr;
  if (H5Fget_filesize(file, &bytes) < 0 || H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0) {
    return;
  }
  const int error = ::posix_fallocate(*static_cast<int*>(handle), 0, static_cast<off_t>(bytes));
  if (error == ENOSPC || error == EFBIG || error == EDQUOT || error == EIO) {
    throw EnvironmentError(path + ": cannot grow to " + std::to_string(bytes) +
                           " bytes: file write failed: " + std::strerror(error));
  }
}

/// Closes a file that will not be kept: what the library still has to write goes into memory, as
/// far as the hard limit of file sizes allows. When H5Fclose cannot write, the library (1.10) keeps
/// a half-freed file.
void give_up(hid_t file) {
  void* handle = nullptr;
  const int memory = ::memfd_create("given up", MFD_CLOEXEC);
  if (memory >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0) {
    ::dup3(memory, *static_cast<int*>(handle), O_CLOEXEC);
  }
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit most{before.rlim_max, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &most);
  H5Fclose(file);
  ::setrlimit(RLIMIT_FSIZE, &before);
  if (memory >= 0) {
    ::close(memory);
  }
}

}  // namespace

Hdf5File::Hdf5File(const std::string& path) : path_(path), id_(-1) {
  silence_hdf5();
  if (!std::filesystem::is_regular_file(path)) {
    throw InputError(path + ": no such file");
  }
  if (H5Fis_hdf5(path.c_str()) <= 0) {
    throw InputError(path + ": not an HDF5 file");
  }
  const Hdf5Handle access = file_access();
  id_ = QNEXT_HDF5(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "");
}

Hdf5File Hdf5File::create(const std::string& path, std::int64_t user_block) {
  silence_hdf5();
  const std::string& path_ = path;  // what QNEXT_HDF5 names
  const Hdf5Handle creation = without_times(H5P_FILE_CREATE);
  QNEXT_HDF5(H5Pset_userblock(creation, static_cast<hsize_t>(user_block)), "");
  const Hdf5Handle access = file_access();
  keep_metadata_in_memory(access);
  return {path, QNEXT_HDF5(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), ""),
          Mode::write};
}

Hdf5File Hdf5File::open_for_writing(const std::string& path) {
  silence_hdf5();
  const std::string& path_ = path;
  const Hdf5Handle access = file_access();
  keep_metadata_in_memory(access);
  return {path, QNEXT_HDF5(H5Fopen(path.c_str(), H5F_ACC_RDWR, access), ""), Mode::write};
}

#if defined(QNEXT_PARALLEL_HDF5)

bool Hdf5File::opens_together() {
  return true;
}

Hdf5File Hdf5File::open_together(const std::string& path, const Communicator& ranks) {
  silence_hdf5();
  const std::string& path_ = path;
  const Hdf5Handle access = file_access();
  QNEXT_HDF5(H5Pset_fapl_mpio(access, communicator_of(ranks.channel()), MPI_INFO_NULL), "");
  return {path, QNEXT_HDF5(H5Fopen(path.c_str(), H5F_ACC_RDWR, access), ""), Mode::together};
}

#else

bool Hdf5File::opens_together() {
  return false;
}

Hdf5File Hdf5File::open_together(const std::string& path, const Communicator&) {
  throw EnvironmentError(path + ": this HDF5 was built without MPI: one rank at a time writes");
}

#endif

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : path_(std::move(other.path_)),
      id_(std::exchange(other.id_, -1)),
      mode_(std::exchange(other.mode_, Mode::read)) {}

// Ranks that have a file open together close it together; one that an exception throws out does not
// wait for the rest.
Hdf5File::~Hdf5File() {
  if (id_ >= 0 && mode_ != Mode::together) {
    mode_ == Mode::write ? give_up(id_) : void(H5Fclose(id_));
    H5Eclear2(H5E_DEFAULT);
  }
}

void Hdf5File::close() {
  if (mode_ == Mode::write) {
    expect_room(id_, path_);
    QNEXT_HDF5(H5Fflush(id_, H5F_SCOPE_GLOBAL), "");
    mode_ = Mode::read;
  }
  QNEXT_HDF5(H5Fclose(std::exchange(id_, -1)), "");
}

}  // namespace qnext
