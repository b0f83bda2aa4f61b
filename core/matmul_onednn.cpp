// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_onednn.hpp"

#include "core/require.hpp"

#include <dnnl.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace qnext::onednn {
namespace {

using dnnl::memory;

constexpr std::size_t most_primitives = 1024;

std::atomic<std::int64_t> scratch_bytes{0};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// Extents, strides of the operands, type and write mode: what a primitive is made for.
using Key = std::array<std::int64_t, 10>;

struct Primitive {
  memory::desc a, b, c;
  dnnl::matmul::primitive_desc description;
  dnnl::matmul matmul;

  explicit Primitive(const Key& key)
      : a({key[0], key[2]}, memory::data_type::bf16, {key[3], key[4]}),
        b({key[2], key[1]}, memory::data_type::bf16, {key[5], key[6]}),
        c({key[0], key[1]}, key[8] == 2 ? memory::data_type::bf16 : memory::data_type::f32,
          {key[7], 1}) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key[9] != 0) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attributes.set_post_ops(add);
    }
    description = dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, engine());
    matmul = dnnl::matmul(description);
  }
};

// The primitives of the process. One is handed out shared, because the cache forgets all of them
// when it is full.
std::shared_ptr<const Primitive> primitive(const Key& key) {
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const Primitive>> cache;
  const std::lock_guard lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) {
    return found->second;
  }
  if (cache.size() == most_primitives) {
    cache.clear();
  }
  return cache.emplace(key, std::make_shared<const Primitive>(key)).first->second;
}

// Scratch memory of the calling thread, grown when a primitive asks for more.
void* scratch(std::size_t bytes) {
  thread_local std::vector<std::byte> memory;
  if (memory.size() < bytes) {
    scratch_bytes += static_cast<std::int64_t>(bytes - memory.size());
    memory.resize(bytes);
  }
  return memory.data();
}

}  // namespace

bool available() {
  static const bool fast = [] {
    try {
      const Primitive probe({32, 32, 32, 32, 1, 32, 1, 32, 4, 0});
      return std::string_view(probe.description.impl_info_str()).starts_with("brg:");
    } catch (const dnnl::error&) {
      return false;
    }
  }();
  return fast;
}

Allowed allowed() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  const bool amx = isa == dnnl::cpu_isa::avx512_core_amx;
  return {amx, amx || isa == dnnl::cpu_isa::avx512_core_bf16};
}

void multiply(int M, int N, int K, const tile::Strided<bf16>& a, const tile::Strided<bf16>& b,
              DataType type, void* c, std::int64_t stride, bool add) {
  try {
    const auto product =
        primitive({M, N, K, a.row, a.column, b.row, b.column, stride, size_of(type), add});
    thread_local dnnl::stream stream(engine());
    const memory::desc scratchpad = product->description.scratchpad_desc();
    const auto view = [](const memory::desc& shape, const void* data) {
      return memory(shape, engine(), const_cast<void*>(data));
    };
    product->matmul.execute(
        stream, {{DNNL_ARG_SRC, view(product->a, a.data)},
                 {DNNL_ARG_WEIGHTS, view(product->b, b.data)},
                 {DNNL_ARG_DST, view(product->c, c)},
                 {DNNL_ARG_SCRATCHPAD, view(scratchpad, scratch(scratchpad.get_size()))}});
    stream.wait();
  } catch (const dnnl::error& error) {
    throw EnvironmentError("oneDNN: product of " + std::to_string(M) + " x " + std::to_string(K) +
                           " and " + std::to_string(K) + " x " + std::to_string(N) + ": " +
                           error.message);
  }
}

void multiply(int M, int N, int K, const tile::Strided<float>& a, const tile::Strided<float>& b,
              float* c, std::int64_t stride, bool add) {
  const bool plain_a = a.column == 1, plain_b = b.column == 1;
  const dnnl_status_t status = dnnl_sgemm(plain_a ? 'N' : 'T', plain_b ? 'N' : 'T', M, N, K, 1.0f,
                                          a.data, plain_a ? a.row : a.column, b.data,
                                          plain_b ? b.row : b.column, add ? 1.0f : 0.0f, c, stride);
  if (status != dnnl_success) {
    throw EnvironmentError("oneDNN: dnnl_sgemm of " + std::to_string(M) + " x " +
                           std::to_string(K) + " and " + std::to_string(K) + " x " +
                           std::to_string(N) + ": status " + std::to_string(status));
  }
}

std::int64_t workspace_bytes() {
  return scratch_bytes;
}

std::int64_t scratch_bytes_of(int M, int N, int K) {
  constexpr int stride = 4096;  // a block of larger matrices: oneDNN copies rows that lie far apart
  std::size_t most = 0;
  for (const bool turn_a : {false, true}) {
    for (const bool turn_b : {false, true}) {
      for (const std::int64_t type_size : {2, 4}) {
        for (const bool add : {false, true}) {
          const Key key{M,
                        N,
                        K,
                        turn_a ? 1 : stride,
                        turn_a ? stride : 1,
                        turn_b ? 1 : stride,
                        turn_b ? stride : 1,
                        stride,
                        type_size,
                        add};
          most = std::max(most, primitive(key)->description.scratchpad_desc().get_size());
        }
      }
    }
  }
  return static_cast<std::int64_t>(most);
}

}  // namespace qnext::onednn
