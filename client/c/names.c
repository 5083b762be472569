#include "latchkey/client.h"

/* By number: the names are the protocol's (protocol/PROTOCOL.md). */

static const char* const verdicts[] = {
    "valid",   "unknown",       "malformed",          "revoked",   "disabled",   "deleted",
    "expired", "not_yet_valid", "insufficient_scope", "forbidden", "unavailable"};
_Static_assert(sizeof verdicts / sizeof *verdicts == LATCHKEY_VERDICTS, "a name for each");

static const char* const refusals[] = {"none",
                                       "bad_version",
                                       "bad_type",
                                       "bad_length",
                                       "bad_reserved",
                                       "bad_flags",
                                       "bad_count",
                                       "bad_source",
                                       "bad_scope",
                                       "truncated",
                                       "trailing",
                                       "bad_timeout",
                                       "unknown_source",
                                       "not_allowed",
                                       "timed_out",
                                       "overloaded",
                                       "stopping",
                                       "no_reasons",
                                       "operation_not_allowed"};
_Static_assert(sizeof refusals / sizeof *refusals == LATCHKEY_ERRORS_END, "a name for each");

static const char* const failures[] = {"none",     "argument", "connect", "timeout", "closed",
                                       "protocol", "refused",  "memory",  "full"};
_Static_assert(sizeof failures / sizeof *failures == 1 - LATCHKEY_FAILED_FULL, "a name for each");

const char* latchkey_verdict_name(uint32_t verdict) {
  return verdict < LATCHKEY_VERDICTS ? verdicts[verdict] : "unknown_verdict";
}

const char* latchkey_refusal_name(uint32_t refusal) {
  return refusal < LATCHKEY_ERRORS_END ? refusals[refusal] : "unknown_refusal";
}

const char* latchkey_failure_name(int failure) {
  return failure <= 0 && failure >= LATCHKEY_FAILED_FULL ? failures[-failure] : "unknown_failure";
}
