// A turn of one conversation alone.
#pragma once

#include "daemon/unix/batch.h"
#include "daemon/unix/conversation.h"

namespace latchkey::test {

inline Conversation::Next turn(Conversation& conversation, FrameBuffer& in, OutBuffer& out,
                               const WorkerContext& context, Batch& batch) {
  conversation.take(in, out, context, batch);
  batch.answer(context);
  return conversation.finish(in, out, context);
}

}  // namespace latchkey::test
