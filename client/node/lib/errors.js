"use strict";

/** There is no answer: admit no one. The message is for a log and never contains a key. */
class LatchkeyError extends Error {
  constructor(failure, message, { refusal, mayPass = false } = {}) {
    super(message);
    this.name = "LatchkeyError";
    /** "argument", "connect", "timeout", "closed", "protocol" or "refused". */
    this.failure = failure;
    if (refusal !== undefined) this.refusal = refusal;
    // True if a retry may succeed.
    Object.defineProperty(this, "mayPass", { value: mayPass });
  }
}

module.exports = { LatchkeyError };
