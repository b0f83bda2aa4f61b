# SPDX-License-Identifier: Apache-2.0
# cmake -D source= -D output= -D version= -D backend= -D compiler= -D flags= -P WriteVersion.cmake
execute_process(COMMAND git -C "${source}" describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  set(commit unknown)  # a release archive has no history
endif()
configure_file("${source}/cmake/version_values.hpp.in" "${output}" @ONLY)
