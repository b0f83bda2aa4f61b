# SPDX-License-Identifier: Apache-2.0
#
# Writes core/version_values.hpp into the build folder. The commit is read again at every build; the
# file is touched only when it changes, so that nothing is compiled in vain.

string(TOUPPER "${CMAKE_BUILD_TYPE}" qnext_build_type)
list(JOIN QNEXT_COMPILE_OPTIONS " " qnext_flags)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${qnext_build_type}} ${qnext_flags}" qnext_flags)
string(TOLOWER "${QNEXT_BACKEND}" qnext_backend)

set(QNEXT_GENERATED "${PROJECT_BINARY_DIR}/generated")
set(qnext_write_version
    ${CMAKE_COMMAND} -D "source=${PROJECT_SOURCE_DIR}" -D "output=${QNEXT_GENERATED}/core/version_values.hpp"
    -D "version=${PROJECT_VERSION}" -D "backend=${qnext_backend}"
    -D "compiler=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -D "flags=${qnext_flags}"
    -P "${PROJECT_SOURCE_DIR}/cmake/WriteVersion.cmake")
execute_process(COMMAND ${qnext_write_version} COMMAND_ERROR_IS_FATAL ANY)
add_custom_target(qnext_version_values COMMAND ${qnext_write_version}
                  BYPRODUCTS "${QNEXT_GENERATED}/core/version_values.hpp" VERBATIM)
