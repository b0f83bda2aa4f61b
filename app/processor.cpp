// SPDX-License-Identifier: Apache-2.0
#include "app/processor.hpp"

#include "app/processor_features.hpp"
#include "core/require.hpp"

namespace qnext {
namespace {

std::span<const ProcessorFeature> all_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const ProcessorFeature features[] = {
      {"sse4.2", built_with.sse42, __builtin_cpu_supports("sse4.2") != 0},
      {"avx", built_with.avx, __builtin_cpu_supports("avx") != 0},
      {"avx2", built_with.avx2, __builtin_cpu_supports("avx2") != 0},
      {"fma", built_with.fma, __builtin_cpu_supports("fma") != 0},
      {"bmi2", built_with.bmi2, __builtin_cpu_supports("bmi2") != 0},
      {"avx512f", built_with.avx512f, __builtin_cpu_supports("avx512f") != 0},
      {"avx512bw", built_with.avx512bw, __builtin_cpu_supports("avx512bw") != 0},
      {"avx512dq", built_with.avx512dq, __builtin_cpu_supports("avx512dq") != 0},
      {"avx512vl", built_with.avx512vl, __builtin_cpu_supports("avx512vl") != 0},
      {"avx512vnni", built_with.avx512vnni, __builtin_cpu_supports("avx512vnni") != 0},
      {"avx512bf16", built_with.avx512bf16, __builtin_cpu_supports("avx512bf16") != 0},
  };
  return features;
#else
  return {};
#endif
}

}  // namespace

void check_processor() {
  check_processor(all_features());
}

void check_processor(std::span<const ProcessorFeature> features) {
  std::string missing;
  for (const ProcessorFeature& feature : features) {
    if (feature.built && !feature.present) {
      missing += " ";
      missing += feature.name;
    }
  }
  if (!missing.empty()) {
    throw EnvironmentError("this qnext was built for a CPU with" + missing +
                           ", which this CPU lacks; build it on this machine, or anywhere with "
                           "-DQNEXT_NATIVE=OFF");
  }
}

std::string processor_features() {
  std::string names;
  for (const ProcessorFeature& feature : all_features()) {
    if (feature.built) {
      names += names.empty() ? "" : " ";
      names += feature.name;
    }
  }
  return names.empty() ? "baseline" : names;
}

}  // namespace qnext
