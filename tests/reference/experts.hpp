// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace qnext::reference {

/// T tokens, D model width, E experts of width F, K for each token, G width of the shared expert.
struct ExpertsShape {
  int T, D, E, K, F, G;
  bool renormalise;
};

/// All row-major, as in the released file; the shared ones are empty without a shared expert.
struct ExpertsWeights {
  std::vector<double> router;                               // (E, D)
  std::vector<double> gate_up;                              // (E, 2F, D)
  std::vector<double> down;                                 // (E, D, F)
  std::vector<double> shared_gate, shared_up, shared_down;  // (G, D), (G, D), (D, G)
  std::vector<double> shared_expert_gate;                   // (1, D)
};

struct ExpertsRouting {
  std::vector<double> probabilities;  // (T, E)
  std::vector<double> log_sum;        // (T)
  std::vector<int> selected;          // (T, K)
  std::vector<double> weights;        // (T, K)
  double smallest_gap = 1.0;          // 1 - next probability / last selected one
};

inline double dot(const double* a, const double* b, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

inline ExpertsRouting route(const ExpertsShape& n, const std::vector<double>& logits) {
  ExpertsRouting routing;
  for (int t = 0; t < n.T; ++t) {
    std::vector<double> p(logits.begin() + t * n.E, logits.begin() + (t + 1) * n.E);
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0.0;
    for (double& value : p) {
      value = std::exp(value - top);
      sum += value;
    }
    std::vector<int> order(n.E);
    for (int e = 0; e < n.E; ++e) {
      p[e] /= sum;
      order[e] = e;
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
    double selected = 0.0;
    for (int k = 0; k < n.K; ++k) {
      selected += p[order[k]];
    }
    for (int k = 0; k < n.K; ++k) {
      routing.selected.push_back(order[k]);
      routing.weights.push_back(p[order[k]] / (n.renormalise ? selected : 1.0));
    }
    if (n.K < n.E) {
      routing.smallest_gap =
          std::min(routing.smallest_gap, 1.0 - p[order[n.K]] / p[order[n.K - 1]]);
    }
    routing.probabilities.insert(routing.probabilities.end(), p.begin(), p.end());
    routing.log_sum.push_back(top + std::log(sum));
  }
  return routing;
}

inline ExpertsRouting route(const ExpertsShape& n, const ExpertsWeights& w,
                            const std::vector<double>& x) {
  std::vector<double> logits;
  for (int t = 0; t < n.T; ++t) {
    for (int e = 0; e < n.E; ++e) {
      logits.push_back(dot(&x[t * n.D], &w.router[e * n.D], n.D));
    }
  }
  return route(n, logits);
}

/// y += scale W_down (silu(W_gate x) W_up x), one token.
inline void add_swiglu(int D, int F, const double* gate, const double* up, const double* down,
                       const double* x, double scale, double* y) {
  std::vector<double> hidden(F);
  for (int f = 0; f < F; ++f) {
    const double g = dot(gate + f * D, x, D);
    hidden[f] = g / (1.0 + std::exp(-g)) * dot(up + f * D, x, D);
  }
  for (int d = 0; d < D; ++d) {
    y[d] += scale * dot(down + d * F, hidden.data(), F);
  }
}

/// The whole layer with a given routing, token by token.
inline std::vector<double> experts(const ExpertsShape& n, const ExpertsWeights& w,
                                   const ExpertsRouting& routing, const std::vector<double>& x) {
  std::vector<double> y(n.T * n.D);
  for (int t = 0; t < n.T; ++t) {
    const double* const token = &x[t * n.D];
    for (int k = 0; k < n.K; ++k) {
      const int e = routing.selected[t * n.K + k];
      const double* const gate = &w.gate_up[e * 2 * n.F * n.D];
      add_swiglu(n.D, n.F, gate, gate + n.F * n.D, &w.down[e * n.D * n.F], token,
                 routing.weights[t * n.K + k], &y[t * n.D]);
    }
    if (n.G > 0) {
      const double s = dot(token, w.shared_expert_gate.data(), n.D);
      add_swiglu(n.D, n.G, w.shared_gate.data(), w.shared_up.data(), w.shared_down.data(), token,
                 1.0 / (1.0 + std::exp(-s)), &y[t * n.D]);
    }
  }
  return y;
}

}  // namespace qnext::reference
