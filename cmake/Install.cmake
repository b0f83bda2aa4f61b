# SPDX-License-Identifier: Apache-2.0
#
# `cmake --install` and find_package(qnext): the program, the libraries, their headers and the decks.

include(CMakePackageConfigHelpers)

set(qnext_package "${CMAKE_INSTALL_LIBDIR}/cmake/qnext")
get_property(qnext_libraries GLOBAL PROPERTY QNEXT_LIBRARIES)

install(TARGETS ${qnext_libraries} EXPORT qnext ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT qnext NAMESPACE qnext:: FILE qnext-targets.cmake DESTINATION ${qnext_package})
if(TARGET qnext)
  install(TARGETS qnext RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
foreach(folder IN ITEMS core parallel layers io app)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/qnext FILES_MATCHING PATTERN *.hpp)
endforeach()
install(DIRECTORY inputs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/qnext/inputs FILES_MATCHING PATTERN *.yaml)

configure_package_config_file(cmake/qnext-config.cmake.in "${PROJECT_BINARY_DIR}/qnext-config.cmake"
                              INSTALL_DESTINATION ${qnext_package})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/qnext-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/qnext-config.cmake" "${PROJECT_BINARY_DIR}/qnext-config-version.cmake"
        DESTINATION ${qnext_package})
# A consumer needs the same libraries and the same sentences when one is missing.
install(FILES cmake/Dependencies.cmake DESTINATION ${qnext_package})
