/* All numbers of Latchkey's protocol. C11 and C++20.
 *
 * This header defines no behaviour: a program in any language needs only these values and
 * protocol/PROTOCOL.md to speak the protocol. All integers are little-endian. A frame is a 16-byte
 * header and a body:
 *
 *     offset  size  field
 *          0     1  version     LATCHKEY_VERSION
 *          1     1  type        enum latchkey_type
 *          2     2  reserved    zero
 *          4     4  length      bytes of the whole frame, header included
 *          8     8  request id  chosen by the client, echoed in the reply
 */
#ifndef LATCHKEY_WIRE_H
#define LATCHKEY_WIRE_H

/* The version and the limits of the protocol. */
enum {
  LATCHKEY_VERSION = 1, /* of the protocol: byte 0 of each frame */

  LATCHKEY_HEADER_BYTES = 16, /* of each frame, before its body */
  /* Maximum size of a request: clients split larger batches. */
  LATCHKEY_REQUEST_BYTES_MAX = 65536,
  /* One presented key; a longer or empty key gets the verdict `malformed`. */
  LATCHKEY_KEY_BYTES_MAX = 4096,
  LATCHKEY_BATCH_KEYS_MAX = 256,  /* in one request */
  LATCHKEY_SCOPES_MAX = 32,       /* in each of the two lists of one request */
  LATCHKEY_SCOPE_BYTES_MAX = 255, /* of one scope in a request */
  LATCHKEY_SOURCE_BYTES_MAX = 63, /* of a source's name */
  /* All claims of one key, encoded. If a row has more, the daemon omits its metadata; if the
   * other claims alone exceed the limit, it refuses the row. */
  LATCHKEY_CLAIMS_BYTES_MAX = 4096,
  LATCHKEY_ERROR_TEXT_BYTES_MAX = 512,  /* of an error reply's text */
  LATCHKEY_SYNC_TIMEOUT_MS_MAX = 60000, /* of a sync request, in milliseconds */

  /* verify request: fixed part of the body, before source, scopes and keys */
  LATCHKEY_VERIFY_FIXED_BYTES = 12,
  /* verify reply: fixed part of each answer, before its claims */
  LATCHKEY_ANSWER_FIXED_BYTES = 8,
  /* verify reply: fixed part of the body, before the answers */
  LATCHKEY_VERIFIED_FIXED_BYTES = 4,

  /* The largest reply: a full batch in which every key has claims of the maximum size. */
  LATCHKEY_REPLY_BYTES_MAX =
      LATCHKEY_HEADER_BYTES + LATCHKEY_VERIFIED_FIXED_BYTES +
      LATCHKEY_BATCH_KEYS_MAX * (LATCHKEY_ANSWER_FIXED_BYTES + LATCHKEY_CLAIMS_BYTES_MAX)
};

/* "Any age", for max_age_ms. Zero would require an answer of this very instant, which no cache can
 * give: a request that omits the field fails closed. */
#define LATCHKEY_MAX_AGE_ANY 0xFFFFFFFFu
/* age_ms of an answer if no source was asked or the source has not been loaded yet. */
#define LATCHKEY_AGE_UNKNOWN 0xFFFFFFFFu

/* Requests have the high bit clear; the reply to request type t is t | 0x80. */
enum latchkey_type {
  LATCHKEY_VERIFY = 0x01,       /* request: a verdict on each of 1 to 256 keys */
  LATCHKEY_PING = 0x02,         /* request: an empty reply */
  LATCHKEY_STATUS = 0x03,       /* request: the daemon's state */
  LATCHKEY_SYNC = 0x04,         /* request: a reply once all earlier commits are in force */
  LATCHKEY_WHY = 0x05,          /* request: an explanation of one key's verdict */
  LATCHKEY_VERIFIED = 0x81,     /* reply: one answer per key, in the order of the keys */
  LATCHKEY_PONG = 0x82,         /* reply: no body */
  LATCHKEY_STATUS_REPLY = 0x83, /* reply: one JSON object */
  LATCHKEY_SYNCED = 0x84,       /* reply: the waiting time in microseconds */
  LATCHKEY_WHY_REPLY = 0x85,    /* reply: one JSON object */
  LATCHKEY_ERROR = 0xFF         /* reply to any request: enum latchkey_error and a text */
};

/* verify request flags */
enum latchkey_verify_flag {
  LATCHKEY_WANT_CLAIMS = 1 << 0,   /* return the key's claims except the metadata */
  LATCHKEY_WANT_METADATA = 1 << 1, /* return the metadata, if the caller may know them */
  /* All flags of this version; the daemon refuses others. */
  LATCHKEY_VERIFY_FLAGS_ALL = LATCHKEY_WANT_CLAIMS | LATCHKEY_WANT_METADATA
};

/* flags of one answer */
enum latchkey_answer_flag {
  /* No change that committed longer ago than the configured bound is missing from this answer. */
  LATCHKEY_FRESH = 1 << 0,
  /* All flags of this version; a client treats an answer with others as LATCHKEY_UNAVAILABLE. */
  LATCHKEY_ANSWER_FLAGS_ALL = LATCHKEY_FRESH
};

/* The verdict on one key. Only LATCHKEY_VALID is a yes. A caller without `reasons` gets
 * LATCHKEY_UNKNOWN instead of LATCHKEY_REVOKED to LATCHKEY_NOT_YET_VALID. */
enum latchkey_verdict {
  LATCHKEY_VALID = 0,         /* the key is good and holds the requested scopes */
  LATCHKEY_UNKNOWN = 1,       /* no source asked contains the key */
  LATCHKEY_MALFORMED = 2,     /* no key: empty, too long, or with a zero byte */
  LATCHKEY_REVOKED = 3,       /* the row revokes the key */
  LATCHKEY_DISABLED = 4,      /* disabled or unreadable row, or several active rows of one source */
  LATCHKEY_DELETED = 5,       /* the row is marked as deleted */
  LATCHKEY_EXPIRED = 6,       /* the key's expiry has passed */
  LATCHKEY_NOT_YET_VALID = 7, /* the key becomes valid later */
  LATCHKEY_INSUFFICIENT_SCOPE = 8, /* the key is good but lacks requested scopes */
  LATCHKEY_FORBIDDEN = 9,          /* the caller may not ask about this source */
  LATCHKEY_UNAVAILABLE = 10,       /* nothing is loaded, or the data is older than permitted */
  LATCHKEY_VERDICTS = 11           /* number of verdicts */
};

/* Layout of one claim: tag (1 byte), length of the value (2 bytes), value. */
enum latchkey_claim {
  LATCHKEY_CLAIM_SOURCE = 1,   /* text: the configured source that answered */
  LATCHKEY_CLAIM_KEY_ID = 2,   /* text: the row's primary key */
  LATCHKEY_CLAIM_SUBJECT = 3,  /* text */
  LATCHKEY_CLAIM_TENANT = 4,   /* text */
  LATCHKEY_CLAIM_SCOPE = 5,    /* text: scopes separated by one space (RFC 6749 section 3.3) */
  LATCHKEY_CLAIM_EXPIRES = 6,  /* 8 bytes, signed: seconds since 1970, UTC, rounded down */
  LATCHKEY_CLAIM_METADATA = 7, /* text: the mapped column as it stands in the row */
  LATCHKEY_CLAIM_BYTES = 3     /* tag and length */
};

/* Why a request got no answer. PROTOCOL.md specifies which errors end the connection. */
enum latchkey_error {
  LATCHKEY_BAD_VERSION = 1,     /* byte 0 is not LATCHKEY_VERSION */
  LATCHKEY_BAD_TYPE = 2,        /* not a request of this version */
  LATCHKEY_BAD_LENGTH = 3,      /* not LATCHKEY_HEADER_BYTES to LATCHKEY_REQUEST_BYTES_MAX */
  LATCHKEY_BAD_RESERVED = 4,    /* a reserved field is not 0 */
  LATCHKEY_BAD_FLAGS = 5,       /* an unknown flag */
  LATCHKEY_BAD_COUNT = 6,       /* no key, too many keys, or too many scopes; why: not one key */
  LATCHKEY_BAD_SOURCE = 7,      /* name too long, or other characters than A-Z a-z 0-9 _ - . */
  LATCHKEY_BAD_SCOPE = 8,       /* empty, or contains a space or a control character */
  LATCHKEY_TRUNCATED = 9,       /* a field runs past the end of the frame */
  LATCHKEY_TRAILING = 10,       /* bytes after the last field */
  LATCHKEY_BAD_TIMEOUT = 11,    /* sync: zero, or over LATCHKEY_SYNC_TIMEOUT_MS_MAX */
  LATCHKEY_UNKNOWN_SOURCE = 12, /* no such source; only callers who may use all sources get it */
  LATCHKEY_NOT_ALLOWED = 13,    /* no rule allows this caller */
  LATCHKEY_TIMED_OUT = 14,      /* sync: not proven in time; changes may be missing */
  LATCHKEY_OVERLOADED = 15,     /* too many connections: try again later */
  LATCHKEY_STOPPING = 16,       /* the daemon stops: connect again */
  LATCHKEY_NO_REASONS = 17,     /* why: this caller may not know reasons */
  LATCHKEY_OPERATION_NOT_ALLOWED = 18, /* the caller's rule does not permit this request */
  LATCHKEY_ERRORS_END = 19             /* one more than the last error */
};

#endif
