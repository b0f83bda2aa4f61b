// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

/// The definitions, for one thread and in double. Slow on purpose: they must be obviously right.
namespace qnext::reference {

struct AttentionShape {
  std::vector<int> lengths;  // of the documents
  int H, G, W;
  int rotary = 0;
  double base = 1e4;
  double epsilon = 1e-6;
  bool gated = true;
  int D = 0;  // model width, of the whole layer

  int tokens() const {
    int sum = 0;
    for (const int length : lengths) {
      sum += length;
    }
    return sum;
  }
};

/// Positions that start at zero in every document.
inline std::vector<int> positions(const std::vector<int>& lengths) {
  std::vector<int> position;
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      position.push_back(i);
    }
  }
  return position;
}

/// Zero-centred RMS norm and rotate-half RoPE of the first `rotary` channels of one head.
inline std::vector<double> norm_and_rotate(const AttentionShape& n, const double* x,
                                           const std::vector<double>& weight, int position) {
  double squares = 0.0;
  for (int w = 0; w < n.W; ++w) {
    squares += x[w] * x[w];
  }
  std::vector<double> y(n.W);
  for (int w = 0; w < n.W; ++w) {
    y[w] = x[w] / std::sqrt(squares / n.W + n.epsilon) * (1.0 + weight[w]);
  }
  const int half = n.rotary / 2;
  for (int i = 0; i < half; ++i) {
    const double angle = position * std::pow(n.base, -2.0 * i / n.rotary);
    const double low = y[i], high = y[i + half];
    y[i] = low * std::cos(angle) - high * std::sin(angle);
    y[i + half] = high * std::cos(angle) + low * std::sin(angle);
  }
  return y;
}

struct Attended {
  std::vector<double> out;  // (T, H, W)
  std::vector<double> lse;  // (T, H)
};

/// Softmax over all keys of the document up to the token itself. q (T, H, W), k and v (T, G, W).
inline Attended attention(const AttentionShape& n, const std::vector<double>& q,
                          const std::vector<double>& k, const std::vector<double>& v) {
  Attended result{std::vector<double>(q.size()), std::vector<double>(q.size() / n.W)};
  int begin = 0;
  for (const int length : n.lengths) {
    for (int t = begin; t < begin + length; ++t) {
      for (int h = 0; h < n.H; ++h) {
        const int g = h / (n.H / n.G);
        std::vector<double> score(t - begin + 1);
        for (int s = begin; s <= t; ++s) {
          double sum = 0.0;
          for (int w = 0; w < n.W; ++w) {
            sum += q[(t * n.H + h) * n.W + w] * k[(s * n.G + g) * n.W + w];
          }
          score[s - begin] = sum / std::sqrt(static_cast<double>(n.W));
        }
        const double highest = *std::max_element(score.begin(), score.end());
        double total = 0.0;
        for (const double value : score) {
          total += std::exp(value - highest);
        }
        result.lse[t * n.H + h] = highest + std::log(total);
        for (int s = begin; s <= t; ++s) {
          const double weight = std::exp(score[s - begin] - highest) / total;
          for (int w = 0; w < n.W; ++w) {
            result.out[(t * n.H + h) * n.W + w] += weight * v[(s * n.G + g) * n.W + w];
          }
        }
      }
    }
    begin += length;
  }
  return result;
}

/// y = x W^T with x (rows, in), W (out, in).
inline std::vector<double> project(const std::vector<double>& x, const std::vector<double>& weight,
                                   int in) {
  const int rows = static_cast<int>(x.size()) / in, out = static_cast<int>(weight.size()) / in;
  std::vector<double> y(static_cast<std::size_t>(rows) * out);
  for (int r = 0; r < rows; ++r) {
    for (int o = 0; o < out; ++o) {
      for (int i = 0; i < in; ++i) {
        y[r * out + o] += x[r * in + i] * weight[o * in + i];
      }
    }
  }
  return y;
}

struct AttentionWeights {
  std::vector<double> q, k, v, o;  // q: rows of a head are [q | gate]
  std::vector<double> q_norm, k_norm;
};

/// The whole layer. x (T, D).
inline std::vector<double> gated_attention(const AttentionShape& n, const AttentionWeights& weights,
                                           const std::vector<double>& x) {
  const auto position = positions(n.lengths);
  const int T = n.tokens(), stride = n.gated ? 2 * n.W : n.W;
  const auto query = project(x, weights.q, n.D), key = project(x, weights.k, n.D);
  std::vector<double> q, k;
  for (int t = 0; t < T; ++t) {
    for (int h = 0; h < n.H; ++h) {
      const double* const head = &query[(t * n.H + h) * stride];
      const auto rotated = norm_and_rotate(n, head, weights.q_norm, position[t]);
      q.insert(q.end(), rotated.begin(), rotated.end());
    }
    for (int g = 0; g < n.G; ++g) {
      const double* const head = &key[(t * n.G + g) * n.W];
      const auto rotated = norm_and_rotate(n, head, weights.k_norm, position[t]);
      k.insert(k.end(), rotated.begin(), rotated.end());
    }
  }
  auto out = attention(n, q, k, project(x, weights.v, n.D)).out;
  if (n.gated) {
    for (int row = 0; row < T * n.H; ++row) {
      for (int w = 0; w < n.W; ++w) {
        out[row * n.W + w] /= 1.0 + std::exp(-query[row * stride + n.W + w]);
      }
    }
  }
  return project(out, weights.o, n.H * n.W);
}

}  // namespace qnext::reference
