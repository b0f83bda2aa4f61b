// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "io/checkpoint.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

// Checkpoints without a model in memory: parameters pass by in pieces of a few megabytes.
namespace qnext {

/// Takes the next bytes of a parameter.
using Sink = std::function<void(std::span<const std::byte>)>;

/// Gives all elements of a parameter to a sink, in their order and in pieces of any length.
using Source = std::function<void(const Parameter&, const Sink&)>;

/// What write_checkpoint writes for the parameters of a table that need not be laid out, byte for
/// byte, by one rank. The hashes are those of what `source` gives: nothing is read back.
void write_checkpoint_stream(const std::string& path, const CheckpointContent& content,
                             const ParameterTable& table, const Source& source);

/// Takes a piece of a parameter; `begin` counts its bytes from that of the first element.
using Taker =
    std::function<void(const Parameter&, std::int64_t begin, std::span<const std::byte> bytes)>;

/// Reads the parameters of a checkpoint in the order of a table that need not be laid out. Names,
/// types and shapes are compared before the first piece, as read_checkpoint_tensors does; a hash
/// when its parameter has passed by: a wrong one is a BadNumberError. `wanted`: whether a parameter
/// is read; absent: all are.
void read_checkpoint_stream(const std::string& path, const ParameterTable& table,
                            const Taker& taker,
                            const std::function<bool(const Parameter&)>& wanted = {});

}  // namespace qnext
