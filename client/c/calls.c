#include <poll.h>
#include <string.h>

#include "client/c/client.h"

/* Batches under way at once: enough to keep the daemon busy. */
enum { WINDOW = 4 };

static const latchkey_question everything = LATCHKEY_QUESTION_INIT;

static lk_request about_keys(enum latchkey_type type, const latchkey_question* question,
                             const latchkey_key* keys, size_t count) {
  return (lk_request){.type = type,
                      .question = question == NULL ? everything : *question,
                      .keys = keys,
                      .count = count};
}

static uint64_t deadline(const latchkey_client* lk, uint32_t more_ms) {
  return lk_now_ms() + lk->timeout_ms + more_ms;
}

/* ---- waiting. Every request has a deadline, so a reply always comes. */

static void wait_reply(latchkey_client* lk, latchkey_reply* reply) {
  bool readable = false;
  for (;;) {
    lk_step(lk, readable);
    if (lk_take(&lk->talk, reply)) return;
    struct pollfd fd = {.fd = lk->fd, .events = latchkey_events(lk)};
    readable = poll(&fd, 1, latchkey_due_ms(lk)) > 0;
  }
}

/* True if a retry may succeed. */
static bool passes(const latchkey_reply* reply) {
  return reply->failure == LATCHKEY_FAILED_CLOSED ||
         (reply->failure == LATCHKEY_FAILED_REFUSED &&
          (reply->refusal == LATCHKEY_OVERLOADED || reply->refusal == LATCHKEY_STOPPING));
}

static int begin(latchkey_client* lk) {
  lk->refusal = 0;
  lk_arena_clear(&lk->texts);
  if (lk->talk.count == 0) return 0;
  lk_say(&lk->talk, "a call that waits, while replies of latchkey_start_* are to be taken");
  return LATCHKEY_FAILED_ARGUMENT;
}

static int ask(latchkey_client* lk, const lk_request* request, uint32_t more_ms,
               latchkey_reply* reply) {
  int failure = begin(lk);
  if (failure != 0) return failure;
  const uint64_t until = deadline(lk, more_ms);
  do {
    failure = lk_queue(lk, request, until, NULL);
    if (failure != 0) return failure;
    wait_reply(lk, reply);
  } while (passes(reply) && lk_now_ms() < until);
  lk->refusal = reply->refusal;
  return reply->failure;
}

/* ---- calls */

static void no_answer(latchkey_answer* answer) {
  *answer = (latchkey_answer){.verdict = LATCHKEY_UNAVAILABLE, .age_ms = LATCHKEY_AGE_UNKNOWN};
}

int latchkey_verify(latchkey_client* lk, const char* key, size_t length,
                    const latchkey_question* question, latchkey_answer* answer) {
  const latchkey_key keys[] = {{key, length}};
  const lk_request request = about_keys(LATCHKEY_VERIFY, question, keys, 1);
  latchkey_reply reply;
  const int failure = ask(lk, &request, 0, &reply);
  if (failure != 0) {
    no_answer(answer);
    return failure;
  }
  *answer = reply.answers[0];
  return (int)answer->verdict;
}

static bool keep_texts(lk_arena* texts, latchkey_answer* answer) {
  return lk_arena_keep(texts, &answer->source) && lk_arena_keep(texts, &answer->key_id) &&
         lk_arena_keep(texts, &answer->subject) && lk_arena_keep(texts, &answer->tenant) &&
         lk_arena_keep(texts, &answer->scope) && lk_arena_keep(texts, &answer->metadata);
}

/* Queues batches until WINDOW are under way; *started counts the keys requested so far. */
static int start_batches(latchkey_client* lk, lk_request* request, const latchkey_key* keys,
                         size_t count, size_t* started, uint64_t until) {
  while (*started < count && lk->talk.count < WINDOW) {
    request->keys = keys + *started;
    request->count = lk_keys_that_fit(&request->question, request->keys, count - *started);
    const int failure = lk_queue(lk, request, until, NULL);
    if (failure != 0) return failure;
    *started += request->count;
  }
  return 0;
}

static int verify_all(latchkey_client* lk, lk_request* request, const latchkey_key* keys,
                      size_t count, latchkey_answer* answers) {
  const uint64_t until = deadline(lk, 0);
  size_t started = 0, done = 0;
  while (done < count) {
    const int failure = start_batches(lk, request, keys, count, &started, until);
    if (failure != 0) return failure;
    latchkey_reply reply;
    wait_reply(lk, &reply);
    if (reply.failure == 0) {
      for (uint32_t i = 0; i < reply.count; ++i, ++done) {
        answers[done] = reply.answers[i];
        if (!keep_texts(&lk->texts, &answers[done])) return LATCHKEY_FAILED_MEMORY;
      }
      continue;
    }
    lk->refusal = reply.refusal;
    if (!passes(&reply) || lk_now_ms() >= until) return reply.failure;
    while (lk_take(&lk->talk, &reply)) continue; /* they failed together */
    started = done;
  }
  lk->refusal = 0;
  return 0;
}

int latchkey_verify_many(latchkey_client* lk, const latchkey_key* keys, size_t count,
                         const latchkey_question* question, latchkey_answer* answers) {
  for (size_t i = 0; i < count; ++i) no_answer(&answers[i]);
  int failure = begin(lk);
  if (failure != 0 || count == 0) return failure;
  /* Check the question before dividing the keys into batches. */
  lk_request request = about_keys(LATCHKEY_VERIFY, question, keys, 1);
  const char* problem = lk_request_problem(&request);
  if (problem != NULL) {
    lk_say(&lk->talk, "this cannot be asked: %s", problem);
    return LATCHKEY_FAILED_ARGUMENT;
  }
  failure = verify_all(lk, &request, keys, count, answers);
  if (failure == 0) return 0;
  lk_abandon(lk); /* replies to other batches may still arrive */
  for (size_t i = 0; i < count; ++i) no_answer(&answers[i]);
  return failure;
}

int latchkey_ping(latchkey_client* lk) {
  latchkey_reply reply;
  return ask(lk, &(lk_request){.type = LATCHKEY_PING}, 0, &reply);
}

int latchkey_sync(latchkey_client* lk, uint32_t timeout_ms, uint64_t* waited_us) {
  latchkey_reply reply;
  const lk_request request = {.type = LATCHKEY_SYNC, .timeout_ms = timeout_ms};
  const int failure = ask(lk, &request, timeout_ms, &reply);
  if (failure == 0 && waited_us != NULL) *waited_us = reply.waited_us;
  return failure;
}

static int ask_text(latchkey_client* lk, const lk_request* request, const char** json) {
  latchkey_reply reply;
  const int failure = ask(lk, request, 0, &reply);
  *json = failure == 0 ? reply.text : NULL;
  return failure;
}

int latchkey_status(latchkey_client* lk, const char** json) {
  return ask_text(lk, &(lk_request){.type = LATCHKEY_STATUS}, json);
}

int latchkey_why(latchkey_client* lk, const char* key, size_t length,
                 const latchkey_question* question, const char** json) {
  const latchkey_key keys[] = {{key, length}};
  const lk_request request = about_keys(LATCHKEY_WHY, question, keys, 1);
  return ask_text(lk, &request, json);
}

/* ---- non-blocking variants */

int latchkey_start_verify(latchkey_client* lk, const latchkey_question* question,
                          const latchkey_key* keys, size_t count, void* context) {
  const lk_request request = about_keys(LATCHKEY_VERIFY, question, keys, count);
  return lk_queue(lk, &request, deadline(lk, 0), context);
}

int latchkey_start_why(latchkey_client* lk, const latchkey_question* question,
                       const latchkey_key* key, void* context) {
  const lk_request request = about_keys(LATCHKEY_WHY, question, key, 1);
  return lk_queue(lk, &request, deadline(lk, 0), context);
}

int latchkey_start_ping(latchkey_client* lk, void* context) {
  return lk_queue(lk, &(lk_request){.type = LATCHKEY_PING}, deadline(lk, 0), context);
}

int latchkey_start_status(latchkey_client* lk, void* context) {
  return lk_queue(lk, &(lk_request){.type = LATCHKEY_STATUS}, deadline(lk, 0), context);
}

int latchkey_start_sync(latchkey_client* lk, uint32_t timeout_ms, void* context) {
  const lk_request request = {.type = LATCHKEY_SYNC, .timeout_ms = timeout_ms};
  return lk_queue(lk, &request, deadline(lk, timeout_ms), context);
}
