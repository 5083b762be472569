// Runs a call that may hang for ever (a name service, a file on a dead mount) on a thread of its
// own, so that the caller can stop waiting for it.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace latchkey {

// The polling interval of a waiting caller.
constexpr auto kAsidePoll = std::chrono::milliseconds(5);

// One call of `make`. If the call never returns, its thread stays until the process ends, so `make`
// must not refer to an object that is destroyed earlier.
template <typename T>
class Aside {
 public:
  template <typename Make>
  explicit Aside(Make make) : call_(std::make_shared<Call>()) {
    std::thread([call = call_, make = std::move(make)] {
      std::shared_ptr<const T> value;
      std::exception_ptr error;
      try {
        value = make();
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard lock(call->mutex);
      call->done = true;
      if (call->abandoned) return;
      call->value = std::move(value);
      call->error = error;
    }).detach();
  }
  [[nodiscard]] bool done() const {
    const std::lock_guard lock(call_->mutex);
    return call_->done;
  }
  // Returns the result of `make`, or throws its exception. Call only after done(), and not after
  // abandon().
  [[nodiscard]] std::shared_ptr<const T> take() const {
    const std::lock_guard lock(call_->mutex);
    if (call_->error) std::rethrow_exception(call_->error);
    return call_->value;
  }
  // Discards the result: now, or as soon as `make` returns, because the result may be a secret.
  void abandon() const {
    const std::lock_guard lock(call_->mutex);
    call_->abandoned = true;
    call_->value.reset();
  }

 private:
  struct Call {
    std::mutex mutex;
    std::shared_ptr<const T> value;
    std::exception_ptr error;
    bool done = false;
    bool abandoned = false;
  };
  std::shared_ptr<Call> call_;
};

}  // namespace latchkey
