// SPDX-License-Identifier: Apache-2.0
#include "app/golden_bounds.hpp"

#include "app/comparison.hpp"
#include "io/hdf5_file.hpp"

#include <algorithm>

namespace qnext {
namespace {

constexpr double tail = 10.0;

bool is_sensitive(const std::string& name) {
  return name.ends_with(".A_log") || name.ends_with(".dt_bias");
}

}  // namespace

GoldenBounds GoldenBounds::read(const Hdf5File& golden, DataType precision) {
  // Hidden states and losses: at least what transformers shows in float on the worst of the models
  // of the golden data, 3.9e-6 and 9e-7; a short run can be exact by luck.
  GoldenBounds bounds{.hidden = tail * 3.9e-6, .loss = tail * 9e-7};
  const auto raise = [](double& bound, double error) { bound = std::max(bound, tail * error); };
  for (const std::string& name : golden.list_datasets()) {
    const std::string dataset = "/" + name;
    if (name.ends_with("logits_float32")) {
      const auto exact = dataset.substr(0, dataset.size() - std::string("_float32").size());
      raise(bounds.logits, largest_difference(golden.read_dataset<double>(dataset).values,
                                              golden.read_dataset<double>(exact).values));
    }
    if (golden.has_attribute(dataset, "float32_error")) {
      raise(bounds.loss, golden.read_attribute<double>(dataset, "float32_error"));
    }
    if (golden.has_attribute(dataset, "float32_max_abs_error")) {
      const double error = golden.read_attribute<double>(dataset, "float32_max_abs_error");
      if (!golden.has_attribute(dataset, "max_abs")) {
        raise(bounds.hidden, error);
      } else if (const double largest = golden.read_attribute<double>(dataset, "max_abs");
                 largest > 0.0) {
        raise(is_sensitive(name) ? bounds.sensitive_gradient : bounds.gradient, error / largest);
      }
    }
  }
  if (precision == DataType::float64) {
    for (double* bound : {&bounds.logits, &bounds.hidden, &bounds.loss, &bounds.sensitive_gradient,
                          &bounds.gradient}) {
      *bound *= tail * 0x1.0p-29;
    }
  }
  return bounds;
}

double GoldenBounds::of_gradient(const std::string& name, const std::string& storage) const {
  const double rounding = storage == "round15" ? 0x1.0p-16 : storage == "float32" ? 6e-8 : 0.0;
  return (is_sensitive(name) ? sensitive_gradient : gradient) + rounding;
}

}  // namespace qnext
