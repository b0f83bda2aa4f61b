// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace qnext {

/// One measured thing: what it computes and moves by count, and the shortest time it took.
struct Measurement {
  std::string name;
  double flops;  // 0: not a matter of arithmetic
  double bytes;  // read and written at least once
  double seconds;
};

/// What shares are taken of.
struct Peaks {
  double product;  // FLOP/s of the best matrix product of the same storage type
  double copy;     // bytes/s, read and written, of a copy beyond the caches
};

/// The shortest of at least three runs, and of as many as fit into half a second, after one that is
/// not counted. `run` only starts the work; the device is waited for.
double shortest_time(const std::function<void()>& run);

/// A table: time, rates and their shares of the peaks.
std::string measurement_table(const std::vector<Measurement>& measurements, const Peaks& peaks);

}  // namespace qnext
