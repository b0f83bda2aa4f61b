// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// Consecutive layers of a model, computed in one go: a piece of a pipeline. The embedding stands
/// in front of the first chunk; the final norm, the head and the module for multi-token prediction
/// stand behind the last one. A chunk may have no layer but these.
struct Chunk {
  int place = 0;   // among the chunks of the model
  int chunks = 1;  // of the model
  int begin = 0;   // layers
  int end = 0;

  bool first() const { return place == 0; }
  bool last() const { return place == chunks - 1; }
  int layers() const { return end - begin; }
};

}  // namespace qnext
