#include "loader/handshake.h"

#include <algorithm>

namespace latchkey {

Handshake::Handshake(Times times, std::int64_t now_ns)
    : times_(times),
      read_deadline_ns_(now_ns + times.connect_ns),
      listen_deadline_ns_(now_ns + times.connect_ns) {}

void Handshake::inspected() {
  reading_ = Lane::kDone;
  read_deadline_ns_ = kNever;  // until the meeting, the listening connection's deadline counts
}

void Handshake::listening() {
  listening_ = Lane::kDone;
  look_ns_ = kNever;
  listen_deadline_ns_ = kNever;
}

bool Handshake::progress(bool works, double queue, std::int64_t now_ns) {
  if (listening_ != Lane::kAsked || !works || queue < kQueueMin) return false;
  const auto most_ns =
      static_cast<std::int64_t>(queue * static_cast<double>(times_.whole_queue_ns));
  if (now_ns > listen_since_ns_ + times_.step_ns + most_ns) return false;
  listen_deadline_ns_ = now_ns + times_.step_ns;
  return true;
}

void Handshake::meeting_refused(std::int64_t now_ns) {
  meeting_ = Meeting::kWanted;
  no_meeting_before_ns_ = now_ns + times_.meet_again_ns;
  read_deadline_ns_ = kNever;
}

void Handshake::prepared() {
  prepared_ = true;
  listen_deadline_ns_ = kNever;
}

Handshake::Step Handshake::next(std::int64_t now_ns, bool read_idle) {
  if (reading_ == Lane::kConnected) {
    reading_ = Lane::kAsked;
    read_deadline_ns_ = now_ns + times_.step_ns;
    return Step::kIdentify;
  }
  if (listening_ == Lane::kConnected) {
    listening_ = Lane::kAsked;
    listen_since_ns_ = now_ns;
    look_ns_ = now_ns + times_.look_ns;
    listen_deadline_ns_ = now_ns + times_.step_ns;
    return Step::kListen;
  }
  if (meeting_ == Meeting::kHeard && read_idle) {
    meeting_ = Meeting::kDone;
    read_deadline_ns_ = kNever;
    listen_deadline_ns_ = now_ns + times_.step_ns;
    return Step::kPrepare;
  }
  if (prepared_ && !over_) {
    over_ = true;
    return Step::kReady;
  }
  if (reading_ != Lane::kDone || !read_idle) return Step::kWait;
  if (listening_ == Lane::kAsked && now_ns >= look_ns_) {
    look_ns_ = now_ns + times_.look_ns;
    return Step::kAskProgress;
  }
  if (listening_ == Lane::kDone && meeting_ == Meeting::kWanted &&
      now_ns >= no_meeting_before_ns_) {
    meeting_ = Meeting::kSent;
    read_deadline_ns_ = now_ns + times_.meeting_ns;
    return Step::kMeet;
  }
  return Step::kWait;
}

std::int64_t Handshake::wake_ns() const {
  std::int64_t wake_ns = std::min(read_deadline_ns_, listen_deadline_ns_);
  if (reading_ != Lane::kDone) return wake_ns;
  if (listening_ == Lane::kAsked) wake_ns = std::min(wake_ns, look_ns_);
  if (listening_ == Lane::kDone && meeting_ == Meeting::kWanted) {
    wake_ns = std::min(wake_ns, no_meeting_before_ns_);
  }
  return wake_ns;
}

}  // namespace latchkey
