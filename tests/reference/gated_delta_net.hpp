// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/reference/delta_rule.hpp"

#include <cmath>
#include <vector>

namespace qnext::reference {

inline double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

/// The convolution over flat channels q | k | v of rows u, (T, channels), SiLU behind it. `tail`
/// (N, taps - 1, channels) or empty; weight (channels, taps).
inline Numbers causal_conv_silu(const std::vector<int>& lengths, int channels, int taps,
                                const Numbers& u, const Numbers& weight, const Numbers& tail) {
  Numbers y(u.size());
  int begin = 0;
  for (std::size_t n = 0; n < lengths.size(); begin += lengths[n], ++n) {
    for (int t = 0; t < lengths[n]; ++t) {
      for (int c = 0; c < channels; ++c) {
        double p = 0.0;
        for (int j = 0; j < taps; ++j) {
          const int s = t - taps + 1 + j;
          const double input = s >= 0 ? u[(begin + s) * channels + c]
                               : tail.empty()
                                   ? 0.0
                                   : tail[(n * (taps - 1) + s + taps - 1) * channels + c];
          p += weight[c * taps + j] * input;
        }
        y[(begin + t) * channels + c] = p * sigmoid(p);
      }
    }
  }
  return y;
}

/// Divides each head by sqrt(|x|^2 + 1e-6), rows of `width`, and multiplies by `scale`.
inline Numbers l2_norm(Numbers x, int width, double scale) {
  for (std::size_t begin = 0; begin < x.size(); begin += width) {
    double squares = 1e-6;
    for (int i = 0; i < width; ++i) {
      squares += x[begin + i] * x[begin + i];
    }
    for (int i = 0; i < width; ++i) {
      x[begin + i] *= scale / std::sqrt(squares);
    }
  }
  return x;
}

/// w x / sqrt(mean(x^2) + epsilon) silu(z), rows of `width`.
inline Numbers gated_rms_norm(const Numbers& x, const Numbers& z, const Numbers& w, int width,
                              double epsilon) {
  Numbers y(x.size());
  for (std::size_t begin = 0; begin < x.size(); begin += width) {
    double squares = 0.0;
    for (int i = 0; i < width; ++i) {
      squares += x[begin + i] * x[begin + i];
    }
    for (int i = 0; i < width; ++i) {
      const double gate = z[begin + i] * sigmoid(z[begin + i]);
      y[begin + i] = w[i] * x[begin + i] / std::sqrt(squares / width + epsilon) * gate;
    }
  }
  return y;
}

/// Weights of the layer, as in the released file.
struct GatedDeltaNetWeights {
  Numbers qkvz;            // (G(2K+2RV), D)
  Numbers ba;              // (2H, D)
  Numbers conv;            // (2GK+HV, taps)
  Numbers a_log, dt_bias;  // (H)
  Numbers norm;            // (V)
  Numbers out;             // (D, HV)
};

struct GatedDeltaNetResult {
  Numbers y;          // (T, D)
  Numbers conv_tail;  // (N, taps - 1, 2GK+HV)
  Numbers memory;     // (N, H, K, V)
};

/// x W^T for rows of width `in`.
inline Numbers project(const Numbers& x, const Numbers& weight, int in, int out) {
  const int T = static_cast<int>(x.size()) / in;
  Numbers y(T * out);
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < out; ++o) {
      for (int i = 0; i < in; ++i) {
        y[t * out + o] += x[t * in + i] * weight[o * in + i];
      }
    }
  }
  return y;
}

/// The layer, from its equations. States may be empty: zero.
inline GatedDeltaNetResult gated_delta_net(const DeltaRuleShape& n, int D, int taps, double epsilon,
                                           const GatedDeltaNetWeights& w, const Numbers& x,
                                           const Numbers& conv_tail, const Numbers& memory) {
  const int T = n.T(), R = n.H / n.G, block = 2 * n.K + 2 * R * n.V;
  const int channels = 2 * n.G * n.K + n.H * n.V, keys = n.G * n.K;
  const Numbers qkvz = project(x, w.qkvz, D, n.G * block), ba = project(x, w.ba, D, 2 * n.H);
  Numbers u(T * channels), z(T * n.H * n.V);
  DeltaRuleOperands in{{}, {}, {}, Numbers(T * n.H), Numbers(T * n.H), memory};
  for (int t = 0; t < T; ++t) {
    for (int g = 0; g < n.G; ++g) {
      const double* row = &qkvz[(t * n.G + g) * block];
      for (int i = 0; i < n.K; ++i) {
        u[t * channels + g * n.K + i] = row[i];
        u[t * channels + keys + g * n.K + i] = row[n.K + i];
      }
      for (int i = 0; i < R * n.V; ++i) {
        u[t * channels + 2 * keys + g * R * n.V + i] = row[2 * n.K + i];
        z[t * n.H * n.V + g * R * n.V + i] = row[2 * n.K + R * n.V + i];
      }
      for (int r = 0; r < R; ++r) {
        const int h = g * R + r;
        const double b = ba[t * 2 * n.H + g * 2 * R + r], a = ba[t * 2 * n.H + g * 2 * R + R + r];
        in.beta[t * n.H + h] = sigmoid(b);
        in.log_decay[t * n.H + h] = -std::exp(w.a_log[h]) * std::log1p(std::exp(a + w.dt_bias[h]));
      }
    }
  }
  const Numbers convolved = causal_conv_silu(n.lengths, channels, taps, u, w.conv, conv_tail);
  for (int t = 0; t < T; ++t) {
    const double* row = &convolved[t * channels];
    in.q.insert(in.q.end(), row, row + keys);
    in.k.insert(in.k.end(), row + keys, row + 2 * keys);
    in.v.insert(in.v.end(), row + 2 * keys, row + channels);
  }
  in.q = l2_norm(in.q, n.K, 1.0 / std::sqrt(n.K));
  in.k = l2_norm(in.k, n.K, 1.0);
  const auto rule = delta_rule(n, in);
  GatedDeltaNetResult result;
  result.y = project(gated_rms_norm(rule.out, z, w.norm, n.V, epsilon), w.out, n.H * n.V, D);
  result.memory = rule.final;
  int end = 0;
  for (int document = 0; document < n.N(); ++document) {
    end += n.lengths[document];
    for (int row = 0; row < taps - 1; ++row) {
      const int t = end - (taps - 1) + row, begin = end - n.lengths[document];
      for (int c = 0; c < channels; ++c) {
        const int before = (document * (taps - 1) + t - begin + taps - 1) * channels + c;
        result.conv_tail.push_back(t >= begin          ? u[t * channels + c]
                                   : conv_tail.empty() ? 0.0
                                                       : conv_tail[before]);
      }
    }
  }
  return result;
}

}  // namespace qnext::reference
