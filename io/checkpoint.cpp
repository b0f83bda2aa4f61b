// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"

#include "core/require.hpp"
#include "core/version.hpp"

namespace qnext {

TensorFamily parameter_family(const ParameterTable& table) {
  TensorFamily family{"parameters", {}};
  for (const auto& group : table.groups()) {
    family.buffers.push_back({group.type, group.values});
  }
  return family;
}

Record& CheckpointContent::record(const std::string& name) {
  return records.try_emplace(name, name).first->second;
}

const Record& CheckpointContent::record(const std::string& name) const {
  const auto it = records.find(name);
  if (it == records.end()) {
    throw InputError("the checkpoint has no record " + name);
  }
  return it->second;
}

Record program_record(int threads, const std::string& processor_features) {
  const Version v = version();
  Record record("program");
  record.set("version", std::string(v.version));
  record.set("commit", std::string(v.commit));
  record.set("backend", std::string(v.backend));
  record.set("compiler", std::string(v.compiler));
  record.set("flags", std::string(v.flags));
  record.set("threads", std::int64_t{threads});
  record.set("processor_features", processor_features);
  return record;
}

}  // namespace qnext
