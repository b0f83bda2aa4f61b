# SPDX-License-Identifier: Apache-2.0

# --- Flags ---------------------------------------------------------------------------------------

include(CheckCXXCompilerFlag)

# No flag here changes the value of an operation. Fused multiply-add is the compiler's default for
# C++; it is spelled out because bitwise comparisons depend on it.
set(QNEXT_COMPILE_OPTIONS -Wall -Wextra)
if(QNEXT_BACKEND MATCHES "^(SERIAL|OPENMP)$")
  list(APPEND QNEXT_COMPILE_OPTIONS -fno-math-errno -fno-trapping-math -ffp-contract=fast)
  if(QNEXT_NATIVE)
    foreach(flag IN ITEMS -march=native -mprefer-vector-width=512)
      string(MAKE_C_IDENTIFIER "QNEXT_ACCEPTS${flag}" accepts)
      check_cxx_compiler_flag(${flag} ${accepts})
      if(${accepts})
        list(APPEND QNEXT_COMPILE_OPTIONS ${flag})
      endif()
    endforeach()
  endif()
endif()
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR QNEXT_BACKEND MATCHES "^(CUDA|HIP)$")
  list(APPEND QNEXT_COMPILE_OPTIONS -Wno-unknown-pragmas)  # "GCC ivdep" speaks to GCC only
endif()
set(QNEXT_LINK_OPTIONS "")
if(QNEXT_SANITIZE)
  set(qnext_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
  list(APPEND QNEXT_COMPILE_OPTIONS ${qnext_sanitizers} -fno-omit-frame-pointer)
  list(APPEND QNEXT_LINK_OPTIONS ${qnext_sanitizers})
endif()

# A Debug build is there to be run under the sanitizers, so it has to be quick enough for the tests.
if(CMAKE_CXX_FLAGS_DEBUG STREQUAL "-g")
  set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")
endif()
# assert() is off in Release by NDEBUG, and so is KOKKOS_ASSERT.
if(CMAKE_CXX_FLAGS_RELEASE STREQUAL "")
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
endif()

# A file of the tests takes four seconds to compile, one of them for the headers of Kokkos, fmt and GoogleTest. A compiler
# cache keeps no file that uses precompiled ones; nvcc and hipcc make none.
set(QNEXT_PRECOMPILE ${QNEXT_PRECOMPILED_HEADERS})
if(QNEXT_PRECOMPILE STREQUAL "AUTO")
  set(QNEXT_PRECOMPILE ON)
  if(CMAKE_CXX_COMPILER_LAUNCHER OR QNEXT_BACKEND MATCHES "^(CUDA|HIP)$")
    set(QNEXT_PRECOMPILE OFF)
  endif()
endif()
set(QNEXT_COMMON_HEADERS <Kokkos_Core.hpp> <fmt/format.h> <algorithm> <functional> <map> <memory> <string> <vector>)

# qnext_precompile(target HEADERS <a.hpp> ...), or FROM another target with the same flags.
function(qnext_precompile target)
  cmake_parse_arguments(arg "" "FROM" "HEADERS" ${ARGN})
  if(NOT QNEXT_PRECOMPILE)
    return()
  endif()
  if(arg_FROM)
    target_precompile_headers(${target} REUSE_FROM ${arg_FROM})
  else()
    target_precompile_headers(${target} PRIVATE ${arg_HEADERS})
  endif()
endfunction()

# --- Libraries -----------------------------------------------------------------------------------

# qnext_library(layers SOURCES a.cpp b.cpp PUBLIC qnext::core PRIVATE HDF5::HDF5)
# Sources are listed by hand: a file that nobody lists is a file that nobody reviewed.
function(qnext_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE;DEFINITIONS" ${ARGN})
  if(arg_SOURCES)
    add_library(qnext_${name} STATIC ${arg_SOURCES})
    set(scope PUBLIC)
    target_compile_options(qnext_${name} PRIVATE ${QNEXT_COMPILE_OPTIONS})
    target_compile_definitions(qnext_${name} PRIVATE ${arg_DEFINITIONS})
    target_link_options(qnext_${name} PUBLIC $<BUILD_INTERFACE:${QNEXT_LINK_OPTIONS}>)
    target_link_libraries(qnext_${name} PRIVATE ${arg_PRIVATE})
    qnext_precompile(qnext_${name} HEADERS ${QNEXT_COMMON_HEADERS})
  else()
    add_library(qnext_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(qnext::${name} ALIAS qnext_${name})
  set_target_properties(qnext_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_include_directories(
    qnext_${name} ${scope} $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/qnext>)
  target_compile_features(qnext_${name} ${scope} cxx_std_20)
  if(QNEXT_BACKEND STREQUAL "CUDA")
    target_compile_definitions(qnext_${name} ${scope} FMT_USE_CONSTEXPR=1)  # fmt 9 takes nvcc for one without
  endif()
  target_link_libraries(qnext_${name} ${scope} Kokkos::kokkos fmt::fmt ${arg_PUBLIC})
  set_property(GLOBAL APPEND PROPERTY QNEXT_LIBRARIES qnext_${name})
endfunction()

# qnext_host_only(options.cpp): files without Kokkos whose libraries clang refuses as HIP code.
function(qnext_host_only)
  if(QNEXT_BACKEND STREQUAL "HIP")
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "-x;c++")
  endif()
endfunction()

# Every header compiled alone: the target `headers`. The list is a glob, because a header that was
# forgotten here would be checked by nobody.
function(qnext_header_check)
  set(sources "")
  foreach(folder IN ITEMS core parallel layers io app tests)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/${folder}/*.hpp)
    if(NOT QNEXT_WITH_MPI)
      list(FILTER headers EXCLUDE REGEX "_mpi\\.hpp$")
    endif()
    foreach(header IN LISTS headers)
      set(source ${PROJECT_BINARY_DIR}/headers/${header}.cpp)
      file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
      list(APPEND sources ${source})
    endforeach()
  endforeach()
  add_library(headers OBJECT EXCLUDE_FROM_ALL ${sources})
  get_property(libraries GLOBAL PROPERTY QNEXT_LIBRARIES)
  target_link_libraries(headers PRIVATE ${libraries} GTest::gtest HDF5::HDF5 $<$<BOOL:${QNEXT_WITH_MPI}>:MPI::MPI_CXX>)
  target_compile_options(headers PRIVATE -Wall -Wextra -O0)
endfunction()

# What the cuda and hip presets have to compile where there is no device: the target gpu_check with
# every library, the program and the named test programs.
function(qnext_gpu_check)
  get_property(libraries GLOBAL PROPERTY QNEXT_LIBRARIES)
  add_custom_target(gpu_check)
  foreach(target IN LISTS libraries ITEMS qnext ${ARGN})
    if(TARGET ${target})
      add_dependencies(gpu_check ${target})
    endif()
  endforeach()
endfunction()

# --- Tests ---------------------------------------------------------------------------------------

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND NOT QNEXT_BACKEND STREQUAL "HIP")
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LINK_OPTIONS -fsanitize=fuzzer)
  check_cxx_source_compiles("extern \"C\" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }"
                            QNEXT_HAS_LIBFUZZER)
  unset(CMAKE_REQUIRED_LINK_OPTIONS)
  if(QNEXT_HAS_LIBFUZZER AND QNEXT_SANITIZE)
    list(APPEND QNEXT_COMPILE_OPTIONS -fsanitize=fuzzer-no-link)  # counts the branches that an input takes
  endif()
endif()

# Threads are not bound in tests, because several of them share the cores.
# Waiting threads sleep: tests of one process run beside each other, each with two threads. Open MPI
# looks for fast networks for a fifth of a second at each start unless it is told which layer to take.
# An allocation that is too large fails under the sanitizers as it does without them.
set(QNEXT_TEST_ENVIRONMENT OMPI_MCA_pml=ob1 OMP_PROC_BIND=false OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
                           UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=allocator_may_return_null=1 "QNEXT_SHARED=${QNEXT_SHARED}"
                           "QNEXT_SOURCE=${PROJECT_SOURCE_DIR}")

# What is tested is in the libraries. Test programs are half of a build, of which -O1 saves about 40 %. With
# expensive optimisations it fuses multiply-adds as the libraries do.
set(QNEXT_TEST_OPTIMISATION "")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND QNEXT_BACKEND MATCHES "^(SERIAL|OPENMP)$")
  set(QNEXT_TEST_OPTIMISATION $<IF:$<CONFIG:Debug>,-O0,-O1> $<$<CONFIG:Release>:-fexpensive-optimizations>)
endif()

# The programs of all tests with the label unit: what the sanitizers see.
add_custom_target(unit_tests)

# A test of one C++ file. With SHARED it reads the folder of golden data and is left out without it.
function(qnext_add_test_program folder label name)
  cmake_parse_arguments(arg "SHARED" "TIMEOUT" "" ${ARGN})
  if(arg_SHARED AND NOT IS_DIRECTORY "${QNEXT_SHARED}")
    message(STATUS "${folder}.${name}: left out, no folder QNEXT_SHARED=${QNEXT_SHARED}")
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  if(QNEXT_SANITIZE)
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 10")
  endif()
  set(target test_${folder}_${name})
  add_executable(${target} ${folder}/test_${name}.cpp)
  target_compile_options(${target} PRIVATE ${QNEXT_COMPILE_OPTIONS})
  target_compile_options(${target} PRIVATE ${QNEXT_TEST_OPTIMISATION})
  target_link_libraries(${target} PRIVATE qnext::testing)
  qnext_precompile(${target} FROM qnext_testing)
  add_dependencies(unit_tests ${target})
  add_test(NAME ${folder}.${name} COMMAND ${target})
  set_tests_properties(${folder}.${name} PROPERTIES LABELS ${label} TIMEOUT ${arg_TIMEOUT}
                                                    ENVIRONMENT "${QNEXT_TEST_ENVIRONMENT}")
endfunction()

# qnext_unit_test(delta_rule [SHARED] [TIMEOUT seconds]) builds unit/test_delta_rule.cpp and adds the
# test unit.delta_rule; the next two do the same in gradient/ and equivalence/.
function(qnext_unit_test name)
  qnext_add_test_program(unit unit ${name} ${ARGN})
endfunction()

function(qnext_gradient_test name)
  qnext_add_test_program(gradient unit ${name} ${ARGN})
endfunction()

function(qnext_equivalence_test name)
  qnext_add_test_program(equivalence unit ${name} ${ARGN})
endfunction()

# qnext_fuzz_test(safetensors) builds fuzz/fuzz_safetensors.cpp: with libFuzzer where the compiler is a
# clang that has it, else with a driver of our own, which also runs under the sanitizers of GCC. The
# test fuzz.safetensors gives it a few seconds. Its label has it run in the debug preset too.
function(qnext_fuzz_test name)
  add_executable(fuzz_${name} fuzz/fuzz_${name}.cpp)
  target_compile_options(fuzz_${name} PRIVATE ${QNEXT_COMPILE_OPTIONS})
  target_link_libraries(fuzz_${name} PRIVATE qnext::app HDF5::HDF5 $<$<BOOL:${QNEXT_WITH_MPI}>:MPI::MPI_CXX>)
  add_dependencies(unit_tests fuzz_${name})
  if(QNEXT_HAS_LIBFUZZER)
    target_sources(fuzz_${name} PRIVATE fuzz/libfuzzer.cpp)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    add_test(NAME fuzz.${name} COMMAND fuzz_${name} -seed=1 -max_total_time=3)
  else()
    target_sources(fuzz_${name} PRIVATE fuzz/driver.cpp fuzz/mutation.cpp)
    add_test(NAME fuzz.${name} COMMAND fuzz_${name} --seconds 3)
  endif()
  set_tests_properties(fuzz.${name} PROPERTIES LABELS unit TIMEOUT 120 ENVIRONMENT "${QNEXT_TEST_ENVIRONMENT}")
endfunction()

# Ranks share the cores of the machine and give way while they wait. Beside other work four of them
# on two cores become thirty times slower: hence the long limits.
set(QNEXT_MPI_ENVIRONMENT OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
                          OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
                          OMPI_MCA_mpi_yield_when_idle=1)

# qnext_mpi_test(communicator RANKS 2 4 [TIMEOUT seconds]) builds mpi/test_communicator.cpp and runs it
# on each number of ranks: mpi.communicator.2, mpi.communicator.4.
function(qnext_mpi_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "RANKS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 240)
  endif()
  set(target test_mpi_${name})
  add_executable(${target} mpi/test_${name}.cpp mpi/main.cpp)
  target_compile_options(${target} PRIVATE ${QNEXT_COMPILE_OPTIONS})
  target_compile_options(${target} PRIVATE ${QNEXT_TEST_OPTIMISATION})
  target_link_libraries(${target} PRIVATE qnext::app GTest::gtest)
  qnext_precompile(${target} FROM qnext_testing)
  foreach(ranks IN LISTS arg_RANKS)
    add_test(NAME mpi.${name}.${ranks} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks}
                                               ${MPIEXEC_PREFLAGS} $<TARGET_FILE:${target}> ${MPIEXEC_POSTFLAGS})
    set_tests_properties(mpi.${name}.${ranks} PROPERTIES LABELS mpi TIMEOUT ${arg_TIMEOUT} PROCESSORS 2
                         ENVIRONMENT "${QNEXT_TEST_ENVIRONMENT};OMP_NUM_THREADS=1;${QNEXT_MPI_ENVIRONMENT}")
  endforeach()
endfunction()

# qnext_deck_test(restart [SHARED] [TIMEOUT seconds]) runs regression/restart.sh in an empty folder of
# its own, with the program in QNEXT and the source tree in QNEXT_SOURCE.
function(qnext_deck_test name)
  cmake_parse_arguments(arg "SHARED" "TIMEOUT" "" ${ARGN})
  if(arg_SHARED AND NOT IS_DIRECTORY "${QNEXT_SHARED}")
    message(STATUS "deck.${name}: left out, no folder QNEXT_SHARED=${QNEXT_SHARED}")
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_test(NAME deck.${name} COMMAND ${CMAKE_COMMAND} -E env QNEXT=$<TARGET_FILE:qnext>
                                     bash ${CMAKE_CURRENT_SOURCE_DIR}/in_empty_folder.sh
                                     ${CMAKE_CURRENT_BINARY_DIR}/deck/${name}
                                     ${CMAKE_CURRENT_SOURCE_DIR}/regression/${name}.sh)
  set_tests_properties(deck.${name} PROPERTIES LABELS deck TIMEOUT ${arg_TIMEOUT}
                                               ENVIRONMENT "${QNEXT_TEST_ENVIRONMENT}")
endfunction()

# The same with several ranks of one thread each: the script calls the launcher in QNEXT_MPIRUN.
function(qnext_mpi_deck_test name)
  qnext_deck_test(${name} TIMEOUT 900 ${ARGN})
  if(TEST deck.${name})
    set_tests_properties(
      deck.${name} PROPERTIES LABELS mpi PROCESSORS 2 ENVIRONMENT
                   "${QNEXT_TEST_ENVIRONMENT};OMP_NUM_THREADS=1;${QNEXT_MPI_ENVIRONMENT};QNEXT_MPIRUN=${MPIEXEC_EXECUTABLE}")
  endif()
endfunction()
