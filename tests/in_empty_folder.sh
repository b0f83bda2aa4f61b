#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# in_empty_folder.sh FOLDER SCRIPT: empties FOLDER and runs SCRIPT in it.
set -euo pipefail
rm -rf "$1"
mkdir -p "$1"
cd "$1"
exec bash -euo pipefail "$2"
