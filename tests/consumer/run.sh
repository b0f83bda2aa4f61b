#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the build in QNEXT_BUILD into an empty folder and builds and runs a consumer of it.
cmake --install "$QNEXT_BUILD" --prefix "$PWD/installed" >/dev/null
cmake -S "$QNEXT_SOURCE/tests/consumer" -B build -G Ninja -DCMAKE_BUILD_TYPE="$QNEXT_BUILD_TYPE" \
  -DCMAKE_CXX_COMPILER="$QNEXT_COMPILER" -DCMAKE_CXX_EXTENSIONS=OFF -Dqnext_ROOT="$PWD/installed" \
  -DQNEXT_KOKKOS_PREFIX="$QNEXT_KOKKOS_PREFIX" -DKokkos_ROOT="$QNEXT_KOKKOS" -DCMAKE_EXE_LINKER_FLAGS="$QNEXT_LINK"
cmake --build build
build/consumer
