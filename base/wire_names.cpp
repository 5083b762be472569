#include "base/wire_names.h"

namespace latchkey {

const char* verdict_name(latchkey_verdict verdict) {
  switch (verdict) {
    case LATCHKEY_VALID: return "valid";
    case LATCHKEY_UNKNOWN: return "unknown";
    case LATCHKEY_MALFORMED: return "malformed";
    case LATCHKEY_REVOKED: return "revoked";
    case LATCHKEY_DISABLED: return "disabled";
    case LATCHKEY_DELETED: return "deleted";
    case LATCHKEY_EXPIRED: return "expired";
    case LATCHKEY_NOT_YET_VALID: return "not_yet_valid";
    case LATCHKEY_INSUFFICIENT_SCOPE: return "insufficient_scope";
    case LATCHKEY_FORBIDDEN: return "forbidden";
    case LATCHKEY_UNAVAILABLE: return "unavailable";
    case LATCHKEY_VERDICTS: break;
  }
  return "invalid_verdict";
}

const char* error_name(latchkey_error code) {
  switch (code) {
    case LATCHKEY_BAD_VERSION: return "bad_version";
    case LATCHKEY_BAD_TYPE: return "bad_type";
    case LATCHKEY_BAD_LENGTH: return "bad_length";
    case LATCHKEY_BAD_RESERVED: return "bad_reserved";
    case LATCHKEY_BAD_FLAGS: return "bad_flags";
    case LATCHKEY_BAD_COUNT: return "bad_count";
    case LATCHKEY_BAD_SOURCE: return "bad_source";
    case LATCHKEY_BAD_SCOPE: return "bad_scope";
    case LATCHKEY_TRUNCATED: return "truncated";
    case LATCHKEY_TRAILING: return "trailing";
    case LATCHKEY_BAD_TIMEOUT: return "bad_timeout";
    case LATCHKEY_UNKNOWN_SOURCE: return "unknown_source";
    case LATCHKEY_NOT_ALLOWED: return "not_allowed";
    case LATCHKEY_TIMED_OUT: return "timed_out";
    case LATCHKEY_OVERLOADED: return "overloaded";
    case LATCHKEY_STOPPING: return "stopping";
    case LATCHKEY_NO_REASONS: return "no_reasons";
    case LATCHKEY_OPERATION_NOT_ALLOWED: return "operation_not_allowed";
    case LATCHKEY_ERRORS_END: break;
  }
  return "unknown_error";
}

const char* error_sentence(latchkey_error code) {
  switch (code) {
    case LATCHKEY_BAD_VERSION: return "byte 0 of a frame must be the protocol version, 1";
    case LATCHKEY_BAD_TYPE: return "byte 1 of a frame names no request of this version";
    case LATCHKEY_BAD_LENGTH:
      return "bytes 4-7 of a frame must be its whole length, 16 to 65536 for a request";
    case LATCHKEY_BAD_RESERVED: return "a reserved field must be zero";
    case LATCHKEY_BAD_FLAGS: return "a flag is set that this version does not know";
    case LATCHKEY_BAD_COUNT:
      return "a request holds 1 to 256 keys (why: exactly 1) and at most 32 scopes in each list";
    case LATCHKEY_BAD_SOURCE:
      return "a source name has at most 63 characters out of A-Z a-z 0-9 _ - .";
    case LATCHKEY_BAD_SCOPE:
      return "a scope may not be empty or hold a space or a control character";
    case LATCHKEY_TRUNCATED: return "a field runs past the end of its frame";
    case LATCHKEY_TRAILING: return "bytes follow the last field of the frame";
    case LATCHKEY_BAD_TIMEOUT: return "a sync timeout is 1 to 60000 milliseconds";
    case LATCHKEY_UNKNOWN_SOURCE: return "no source of this name is configured";
    case LATCHKEY_NOT_ALLOWED: return "no [[allow]] rule of the daemon admits this caller";
    case LATCHKEY_TIMED_OUT: return "not proven in time: what is in force now is not known";
    case LATCHKEY_OVERLOADED: return "too many connections: try again later";
    case LATCHKEY_STOPPING: return "the daemon is stopping: connect again";
    case LATCHKEY_NO_REASONS:
      return "this caller may not know reasons: its [[allow]] rule of the daemon lacks"
             " `reasons = true`";
    case LATCHKEY_OPERATION_NOT_ALLOWED:
      return "this caller may not ask that: its [[allow]] rule of the daemon has other "
             "`operations`";
    case LATCHKEY_ERRORS_END: break;
  }
  return "this error is not known to this version";
}

}  // namespace latchkey
