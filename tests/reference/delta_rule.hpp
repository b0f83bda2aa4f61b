// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace qnext::reference {

/// Documents of those lengths in one row of T tokens, G key heads, H value heads, widths K and V.
/// Value head h reads key head h / (H / G).
struct DeltaRuleShape {
  std::vector<int> lengths;
  int G, H, K, V;

  int T() const { return std::accumulate(lengths.begin(), lengths.end(), 0); }
  int N() const { return static_cast<int>(lengths.size()); }
};

using Numbers = std::vector<double>;

struct DeltaRuleOperands {
  Numbers q, k;             // (T, G, K)
  Numbers v;                // (T, H, V)
  Numbers log_decay, beta;  // (T, H)
  Numbers initial;          // (N, H, K, V), or empty: zero
};

struct DeltaRuleResult {
  Numbers out;     // (T, H, V)
  Numbers final;   // (N, H, K, V)
  Numbers memory;  // (T, H, K, V)  after every token
};

/// The definition, for one thread and in double. Slow on purpose: it must be obviously right.
inline DeltaRuleResult delta_rule(const DeltaRuleShape& n, const DeltaRuleOperands& in) {
  const int area = n.K * n.V;
  DeltaRuleResult result{Numbers(in.v.size()), Numbers(n.N() * n.H * area),
                         Numbers(n.T() * n.H * area)};
  int t = 0;
  for (int document = 0; document < n.N(); ++document) {
    std::vector<Numbers> S(n.H, Numbers(area, 0.0));
    for (int h = 0; h < n.H && !in.initial.empty(); ++h) {
      const double* from = &in.initial[(document * n.H + h) * area];
      S[h].assign(from, from + area);
    }
    for (const int end = t + n.lengths[document]; t < end; ++t) {
      for (int h = 0; h < n.H; ++h) {
        const int g = h / (n.H / n.G);
        const double* qt = &in.q[(t * n.G + g) * n.K];
        const double* kt = &in.k[(t * n.G + g) * n.K];
        const double* vt = &in.v[(t * n.H + h) * n.V];
        double* ot = &result.out[(t * n.H + h) * n.V];
        for (double& s : S[h]) {
          s *= std::exp(in.log_decay[t * n.H + h]);
        }
        for (int j = 0; j < n.V; ++j) {
          double recalled = 0.0;
          for (int i = 0; i < n.K; ++i) {
            recalled += S[h][i * n.V + j] * kt[i];
          }
          const double write = in.beta[t * n.H + h] * (vt[j] - recalled);
          for (int i = 0; i < n.K; ++i) {
            S[h][i * n.V + j] += kt[i] * write;
            ot[j] += S[h][i * n.V + j] * qt[i];
          }
        }
        std::copy(S[h].begin(), S[h].end(), &result.memory[(t * n.H + h) * area]);
      }
    }
    for (int h = 0; h < n.H; ++h) {
      std::copy(S[h].begin(), S[h].end(), &result.final[(document * n.H + h) * area]);
    }
  }
  return result;
}

struct DeltaRuleGradients {
  Numbers q, k, v, log_decay, beta, initial;
};

/// The adjoint of delta_rule, token by token from the last to the first. `dfinal` may be empty.
inline DeltaRuleGradients delta_rule_adjoint(const DeltaRuleShape& n, const DeltaRuleOperands& in,
                                             const DeltaRuleResult& forward, const Numbers& dout,
                                             const Numbers& dfinal) {
  const int area = n.K * n.V;
  DeltaRuleGradients d{Numbers(in.q.size()),    Numbers(in.k.size()),
                       Numbers(in.v.size()),    Numbers(in.log_decay.size()),
                       Numbers(in.beta.size()), Numbers(n.N() * n.H * area)};
  int begin = 0;
  for (int document = 0; document < n.N(); ++document) {
    const int end = begin + n.lengths[document];
    for (int h = 0; h < n.H; ++h) {
      const int g = h / (n.H / n.G);
      const std::size_t state = static_cast<std::size_t>(document * n.H + h) * area;
      Numbers dS(area, 0.0);
      if (!dfinal.empty()) {
        dS.assign(&dfinal[state], &dfinal[state] + area);
      }
      for (int t = end - 1; t >= begin; --t) {
        const double decay = std::exp(in.log_decay[t * n.H + h]), beta = in.beta[t * n.H + h];
        const double* q = &in.q[(t * n.G + g) * n.K];
        const double* k = &in.k[(t * n.G + g) * n.K];
        const double* v = &in.v[(t * n.H + h) * n.V];
        const double* dO = &dout[(t * n.H + h) * n.V];
        const double* after = &forward.memory[(t * n.H + h) * area];
        const double* before = t > begin             ? &forward.memory[((t - 1) * n.H + h) * area]
                               : !in.initial.empty() ? &in.initial[state]
                                                     : nullptr;
        const auto decayed = [&](int i, int j) {
          return before == nullptr ? 0.0 : decay * before[i * n.V + j];
        };
        for (int j = 0; j < n.V; ++j) {
          double recalled = 0.0, ddelta = 0.0;
          for (int i = 0; i < n.K; ++i) {
            dS[i * n.V + j] += q[i] * dO[j];
            recalled += decayed(i, j) * k[i];
            ddelta += dS[i * n.V + j] * k[i];
          }
          const double error = v[j] - recalled;
          d.v[(t * n.H + h) * n.V + j] = beta * ddelta;
          d.beta[t * n.H + h] += ddelta * error;
          for (int i = 0; i < n.K; ++i) {
            double& s = dS[i * n.V + j];
            d.q[(t * n.G + g) * n.K + i] += after[i * n.V + j] * dO[j];
            d.k[(t * n.G + g) * n.K + i] += s * beta * error - decayed(i, j) * beta * ddelta;
            s -= k[i] * beta * ddelta;
            d.log_decay[t * n.H + h] += s * decayed(i, j);
            s *= decay;
          }
        }
      }
      std::copy(dS.begin(), dS.end(), &d.initial[state]);
    }
    begin = end;
  }
  return d;
}

}  // namespace qnext::reference
