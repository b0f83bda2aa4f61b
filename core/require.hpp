// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace qnext {

/// The exit statuses that the README documents.
enum class Status : int {
  done = 0,
  defect = 1,
  user_input = 2,
  environment = 3,
  bad_number = 4,
  interrupted = 75
};

/// Every error of qnext: the message names the object, the value found and the value wanted; `main`
/// prints it once and leaves with `status`.
class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

/// What the user gave (deck, file, option) is wrong.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(Status::user_input, message) {}
};

/// A library, the file system or the machine failed.
class EnvironmentError : public Error {
 public:
  explicit EnvironmentError(const std::string& message) : Error(Status::environment, message) {}
};

/// A number went bad: not finite, a spike, a hash, a comparison.
class BadNumberError : public Error {
 public:
  explicit BadNumberError(const std::string& message) : Error(Status::bad_number, message) {}
};

/// Our own promise to ourselves; a failure is a defect of qnext and says where.
void require(bool condition, std::string_view message,
             const std::source_location& where = std::source_location::current());

}  // namespace qnext
