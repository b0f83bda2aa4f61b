# SPDX-License-Identifier: Apache-2.0
#
# Every library that qnext uses, found in one place. What a module, Spack or <Package>_ROOT offers
# comes first; for Kokkos the prefix that scripts/build_kokkos made comes second. A library that is
# missing ends the configuration with the sentence that fixes it.

# qnext_require(HDF5 "apt-get install libhdf5-dev" COMPONENTS C)
macro(qnext_require package remedy)
  find_package(${package} QUIET ${ARGN})
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "${package} was not found. On Debian: ${remedy}. Elsewhere: load its module "
                        "or set ${package}_ROOT to the folder where it is installed.")
  endif()
endmacro()

# qnext_header_and_library(xxhash xxhash.h xxhash "apt-get install libxxhash-dev") makes xxhash::xxhash
# for a library without a usable package file.
function(qnext_header_and_library package header library remedy)
  set(roots "${${package}_ROOT}" "$ENV{${package}_ROOT}")
  find_path(${package}_INCLUDE_DIR ${header} HINTS ${roots} PATH_SUFFIXES include)
  find_library(${package}_LIBRARY ${library} HINTS ${roots} PATH_SUFFIXES lib lib64)
  mark_as_advanced(${package}_INCLUDE_DIR ${package}_LIBRARY)
  if(NOT ${package}_INCLUDE_DIR OR NOT ${package}_LIBRARY)
    message(FATAL_ERROR "${package} was not found (${header} and lib${library}). On Debian: ${remedy}. Elsewhere: "
                        "load its module or set ${package}_ROOT to the folder where it is installed.")
  endif()
  if(NOT TARGET ${package}::${library})
    add_library(${package}::${library} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${package}::${library} PROPERTIES IMPORTED_LOCATION "${${package}_LIBRARY}"
                          INTERFACE_INCLUDE_DIRECTORIES "${${package}_INCLUDE_DIR}")
  endif()
endfunction()

# --- Kokkos --------------------------------------------------------------------------------------

if(NOT DEFINED qnext_prefix_name)
  string(TOLOWER "${QNEXT_BACKEND}" qnext_prefix_name)
  if(QNEXT_BACKEND STREQUAL "SERIAL" AND CMAKE_BUILD_TYPE STREQUAL "Debug")
    set(qnext_prefix_name debug)  # the same backend with bounds checks
  endif()
endif()
if(DEFINED ENV{QNEXT_CACHE})
  set(qnext_cache "$ENV{QNEXT_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(qnext_cache "$ENV{XDG_CACHE_HOME}/qnext")
else()
  set(qnext_cache "$ENV{HOME}/.cache/qnext")
endif()
set(QNEXT_KOKKOS_PREFIX "${qnext_cache}/kokkos/${qnext_prefix_name}" CACHE PATH
    "Where Kokkos is looked for when the environment offers none")
mark_as_advanced(QNEXT_KOKKOS_PREFIX)

find_package(Kokkos QUIET)
if(NOT Kokkos_FOUND)
  find_package(Kokkos QUIET PATHS "${QNEXT_KOKKOS_PREFIX}" NO_DEFAULT_PATH)
endif()
if(NOT Kokkos_FOUND)
  message(FATAL_ERROR "Kokkos with the backend ${QNEXT_BACKEND} was not found. Run "
                      "'scripts/build_kokkos ${qnext_prefix_name}' (Debian; minutes, once), or load a module, or set "
                      "Kokkos_ROOT to the folder where it is installed.")
endif()

if(Kokkos_VERSION VERSION_LESS 3.4)
  message(FATAL_ERROR "Kokkos ${Kokkos_VERSION} in ${Kokkos_DIR} is too old, 3.4 or newer is wanted. Set "
                      "Kokkos_ROOT to a newer one or run 'scripts/build_kokkos ${qnext_prefix_name}'.")
endif()
if(NOT QNEXT_BACKEND IN_LIST Kokkos_DEVICES)
  message(FATAL_ERROR "Kokkos in ${Kokkos_DIR} has the backends ${Kokkos_DEVICES}, wanted is ${QNEXT_BACKEND}. Set "
                      "Kokkos_ROOT to one that has it (for instance ${QNEXT_KOKKOS_PREFIX}, which "
                      "'scripts/build_kokkos ${qnext_prefix_name}' makes).")
endif()
message(STATUS "Kokkos ${Kokkos_VERSION} (${Kokkos_DEVICES}): ${Kokkos_DIR}")

# --- What multiplies matrices, behind core/matmul ------------------------------------------------

set(QNEXT_MATRIX_LIBRARIES "")
set(QNEXT_MATRIX_DEFINITIONS "")
if(QNEXT_BACKEND MATCHES "^(SERIAL|OPENMP)$")
  # oneDNN's own package file wants OpenCL, which nothing here uses: header and library are enough.
  qnext_header_and_library(DNNL dnnl.hpp dnnl "apt-get install libdnnl-dev")
  list(APPEND QNEXT_MATRIX_LIBRARIES DNNL::dnnl)
elseif(QNEXT_BACKEND STREQUAL "CUDA")
  qnext_require(CUDAToolkit "install the CUDA toolkit and put nvcc on PATH")
  list(APPEND QNEXT_MATRIX_LIBRARIES CUDA::cublas CUDA::cublasLt)
elseif(QNEXT_BACKEND STREQUAL "HIP")
  # Debian 12 has no rocBLAS: without it products run on the tiled Kokkos fallback.
  find_package(rocblas QUIET)
  if(rocblas_FOUND)
    list(APPEND QNEXT_MATRIX_LIBRARIES roc::rocblas)
    list(APPEND QNEXT_MATRIX_DEFINITIONS QNEXT_ROCBLAS)
  endif()
else()
  message(FATAL_ERROR "QNEXT_BACKEND=${QNEXT_BACKEND}: wanted is SERIAL, OPENMP, CUDA or HIP.")
endif()

# --- MPI -----------------------------------------------------------------------------------------

set(QNEXT_WITH_MPI OFF)
if(NOT QNEXT_MPI STREQUAL "OFF")
  set(MPI_CXX_SKIP_MPICXX TRUE)
  if(QNEXT_MPI STREQUAL "ON")
    qnext_require(MPI "apt-get install libopenmpi-dev openmpi-bin" COMPONENTS CXX)
  else()
    find_package(MPI QUIET COMPONENTS CXX)
  endif()
  set(QNEXT_WITH_MPI ${MPI_CXX_FOUND})
endif()
if(QNEXT_WITH_MPI)
  message(STATUS "MPI ${MPI_CXX_VERSION}: ${MPIEXEC_EXECUTABLE}")
else()
  message(STATUS "MPI: none, every run has one rank")
endif()

# --- HDF5 ----------------------------------------------------------------------------------------

# Beside MPI one with MPI, into whose files several ranks write at once; into those of another one
# they write in turns.
set(HDF5_PREFER_PARALLEL ${QNEXT_WITH_MPI})
qnext_require(HDF5 "apt-get install libhdf5-openmpi-dev libhdf5-dev" COMPONENTS C)
set(QNEXT_HDF5_LIBRARIES HDF5::HDF5)
set(QNEXT_HDF5_DEFINITIONS "")
set(qnext_hdf5_ranks "one rank at a time writes a file")
if(QNEXT_WITH_MPI)
  list(APPEND QNEXT_HDF5_LIBRARIES MPI::MPI_CXX)
  set(QNEXT_HDF5_DEFINITIONS QNEXT_WITH_MPI)
  if(HDF5_IS_PARALLEL)
    set(qnext_hdf5_ranks "ranks write a file together")
  endif()
endif()
message(STATUS "HDF5 ${HDF5_VERSION}: ${qnext_hdf5_ranks}")

# --- Files, decks, command line ------------------------------------------------------------------

qnext_require(Threads "apt-get install libc6-dev")
qnext_require(fmt "apt-get install libfmt-dev")
qnext_require(yaml-cpp "apt-get install libyaml-cpp-dev")
qnext_require(nlohmann_json "apt-get install nlohmann-json3-dev")
qnext_require(CLI11 "apt-get install libcli11-dev")

qnext_header_and_library(xxhash xxhash.h xxhash "apt-get install libxxhash-dev")
qnext_require(ZLIB "apt-get install zlib1g-dev")
qnext_header_and_library(zstd zstd.h zstd "apt-get install libzstd-dev")
qnext_header_and_library(PCRE2 pcre2.h pcre2-8 "apt-get install libpcre2-dev")
qnext_header_and_library(utf8proc utf8proc.h utf8proc "apt-get install libutf8proc-dev")
# \p{White_Space} came with PCRE2 10.40.
file(STRINGS "${PCRE2_INCLUDE_DIR}/pcre2.h" qnext_pcre2_minor REGEX "^#define PCRE2_MINOR")
string(REGEX REPLACE "[^0-9]*PCRE2_MINOR *" "" qnext_pcre2_minor "${qnext_pcre2_minor}")
if(qnext_pcre2_minor LESS 40)
  message(FATAL_ERROR "PCRE2 10.${qnext_pcre2_minor} in ${PCRE2_INCLUDE_DIR} is too old, 10.40 or newer is wanted. "
                      "Set PCRE2_ROOT to the folder where it is installed.")
endif()
# yaml-cpp calls its target yaml-cpp up to 0.7 and yaml-cpp::yaml-cpp from 0.8.
if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp INTERFACE IMPORTED)
  target_link_libraries(yaml-cpp::yaml-cpp INTERFACE yaml-cpp)
endif()

if(QNEXT_BUILD_TESTS)
  qnext_require(GTest "apt-get install libgtest-dev")
endif()

# Golden models, texts and programs to compare with; tests that read them are left out without.
if(DEFINED ENV{QNEXT_SHARED})
  set(qnext_shared "$ENV{QNEXT_SHARED}")
else()
  cmake_path(SET qnext_shared NORMALIZE "${PROJECT_SOURCE_DIR}/../shared")
endif()
set(QNEXT_SHARED "${qnext_shared}" CACHE PATH "Folder of golden data; may be absent")
