"use strict";

/** There is no answer: let nobody in. Its message is for a log and never holds a key. */
class LatchkeyError extends Error {
  constructor(failure, message, { refusal, mayPass = false } = {}) {
    super(message);
    this.name = "LatchkeyError";
    /** "argument", "connect", "timeout", "closed", "protocol" or "refused". */
    this.failure = failure;
    if (refusal !== undefined) this.refusal = refusal;
    // Would there perhaps be an answer if it were asked again?
    Object.defineProperty(this, "mayPass", { value: mayPass });
  }
}

module.exports = { LatchkeyError };
