// What may hang for ever (a name service, a file on a mount that is dead) runs on a thread of its
// own, so that whoever needs it can give up waiting.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace latchkey {

// How often whoever waits looks.
constexpr auto kAsidePoll = std::chrono::milliseconds(5);

// One call of `make`. If it never returns, its thread stays until the process ends; so `make` may
// lead to nothing that goes before that.
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
  // Once done(), and not abandoned: what `make` returned or threw.
  [[nodiscard]] std::shared_ptr<const T> take() const {
    const std::lock_guard lock(call_->mutex);
    if (call_->error) std::rethrow_exception(call_->error);
    return call_->value;
  }
  // Nobody wants it any more: whenever it comes, it goes at once. It may be a secret.
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
