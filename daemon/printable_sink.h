// Whatever is logged, by us or by a library, reaches the journal or the terminal printable.
#pragma once

#include <spdlog/sinks/sink.h>

#include <memory>
#include <string>
#include <utility>

#include "protocol/printable.h"

namespace latchkey {

// Stands before the real sink, since not every sink formats (the journal's takes the bare message),
// so no formatter could be the guard.
class PrintableSink : public spdlog::sinks::sink {
 public:
  explicit PrintableSink(spdlog::sink_ptr below) : below_(std::move(below)) {}

  void log(const spdlog::details::log_msg& message) override {
    const std::string shown =
        printable(std::string_view(message.payload.data(), message.payload.size()));
    spdlog::details::log_msg copy = message;
    copy.payload = shown;
    below_->log(copy);
  }
  void flush() override { below_->flush(); }
  void set_pattern(const std::string& pattern) override { below_->set_pattern(pattern); }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    below_->set_formatter(std::move(formatter));
  }

 private:
  spdlog::sink_ptr below_;
};

}  // namespace latchkey
