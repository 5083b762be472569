// Asks the latchkeyd of this host whether to admit the holder of an API key. See README.md.
"use strict";

const { Connection, closed } = require("./lib/connection.js");
const { LatchkeyError } = require("./lib/errors.js");
const wire = require("./lib/wire.js");

const DEFAULT_SOCKET = "/run/latchkey/latchkey.sock";
const PENDING_MAX = 4096;
const DELAY_FIRST_MS = 2;
const DELAY_MAX_MS = 250;

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// The maximum of setTimeout(), which fires at once for longer delays.
const TIMER_MAX_MS = 2 ** 31 - 1;
const waitMs = (deadline) => Math.min(Math.max(deadline - performance.now(), 0), TIMER_MAX_MS);

/** A client of one daemon. All calls share one connection, made when needed. */
class Client {
  constructor({ path, timeoutMs = 1000 } = {}) {
    this.path = path || process.env.LATCHKEY_SOCKET || DEFAULT_SOCKET;
    if (Buffer.byteLength(this.path) > 107) throw wire.argument("a socket's path has at most 107 bytes");
    if (typeof timeoutMs !== "number" || !(timeoutMs >= 0)) {
      throw wire.argument("timeoutMs is a number of milliseconds, 0 or more");
    }
    this.timeoutMs = timeoutMs;
    this._connection = undefined;
    this._delayMs = DELAY_FIRST_MS;
    this._underWay = 0;
    this._turns = []; // calls that wait because too many requests are under way
    this._closed = false;
  }

  /** Verifies one key; the holder is admitted if the answer's isValid is true. */
  async verify(key, terms) {
    const asked = wire.question(terms);
    const [answer] = await this._verify(asked, [wire.bytesOf(key)], this._deadline());
    return answer;
  }

  /** Resolves to one answer per key, in the order of the keys, in as few requests as possible. */
  async verifyMany(keys, terms) {
    const asked = wire.question(terms);
    const deadline = this._deadline();
    const all = [];
    for (const batch of wire.batches(asked, Array.from(keys, wire.bytesOf))) {
      all.push(...await this._verify(asked, batch, deadline));
    }
    return all;
  }

  /** Resolves once the daemon has answered. */
  async ping() {
    await this._ask(empty(wire.PING, wire.decodeEmpty), this._deadline());
  }

  /** Resolves to the microseconds until every change committed before the call was in force. */
  async sync(timeoutMs = 10000) {
    wire.checkSyncTimeout(timeoutMs);
    const request = {
      type: wire.SYNC,
      encode: (id) => wire.encodeSync(id, timeoutMs),
      decode: wire.decodeSynced,
    };
    // Uses a connection of its own, because later replies would wait for this one.
    const alone = new Client({ path: this.path, timeoutMs: this.timeoutMs + timeoutMs });
    try {
      return await alone._ask(request, alone._deadline());
    } finally {
      alone.close();
    }
  }

  /** Resolves to the daemon's status, the object that `latchkey status --json` prints. */
  async status() {
    return this._ask(empty(wire.STATUS, wire.decodeObject), this._deadline());
  }

  /** Explains the verdict on one key: resolves to the object that `latchkey why --json` prints. */
  async why(key, terms) {
    const asked = wire.question(terms);
    const keys = [wire.bytesOf(key)];
    const request = {
      type: wire.WHY,
      encode: (id) => wire.encodeKeys(wire.WHY, id, asked, keys),
      decode: wire.decodeObject,
    };
    return this._ask(request, this._deadline());
  }

  /** Ends the connection; requests under way fail. The client cannot be used afterwards. */
  close() {
    this._closed = true;
    if (this._connection) this._connection.end(closed("the client is closed"));
  }

  // ---- retries until an answer or the deadline

  _deadline() {
    return performance.now() + this.timeoutMs;
  }

  _verify(asked, keys, deadline) {
    return this._ask({
      type: wire.VERIFY,
      encode: (id) => wire.encodeKeys(wire.VERIFY, id, asked, keys),
      decode: (body) => {
        const answers = wire.decodeVerified(body);
        if (answers.length !== keys.length) throw new wire.WireError("bad_count");
        return answers;
      },
    }, deadline);
  }

  async _ask(request, deadline) {
    if (this._underWay >= PENDING_MAX) await this._turn(deadline);
    ++this._underWay;
    try {
      return await this._askUntil(request, deadline);
    } finally {
      --this._underWay;
      if (this._turns.length !== 0) this._turns.shift()();
    }
  }

  _turn(deadline) {
    return new Promise((resolve, reject) => {
      const turn = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this._turns.splice(this._turns.indexOf(turn), 1);
        reject(new LatchkeyError("timeout", `${PENDING_MAX} other requests were under way`));
      }, waitMs(deadline));
      this._turns.push(turn);
    });
  }

  async _askUntil(request, deadline) {
    for (;;) {
      try {
        const answer = await this._askOnce(request, deadline);
        this._delayMs = DELAY_FIRST_MS;
        return answer;
      } catch (error) {
        if (!error.mayPass || this._closed) throw error;
        // Half of the delay is random, so that the processes of a host do not reconnect at the same
        // time.
        const delay = this._delayMs * (0.5 + Math.random() / 2);
        this._delayMs = Math.min(2 * this._delayMs, DELAY_MAX_MS);
        const left = deadline - performance.now();
        await sleep(Math.max(Math.min(delay, left), 0));
        if (delay >= left) throw error;
      }
    }
  }

  async _askOnce(request, deadline) {
    if (this._closed) throw new LatchkeyError("argument", "the client is closed");
    if (this._connection === undefined || !this._connection.usable) {
      this._connection = new Connection(this.path);
    }
    const connection = this._connection;
    let timer, immediate;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        // Timers run before sockets are read: after a delay of the loop, the reply may be in the
        // socket.
        immediate = setImmediate(() => {
          // The connection ends with the deadline of one request, because all later ones would
          // wait, too.
          reject(new LatchkeyError("timeout", "latchkeyd did not answer in time"));
          connection.end(closed("given up: latchkeyd did not answer an earlier request in time"));
        });
      }, waitMs(deadline));
    });
    try {
      return await Promise.race([connection.ask(request), late]);
    } finally {
      clearTimeout(timer);
      clearImmediate(immediate);
    }
  }
}

function empty(type, decode) {
  return { type, encode: (id) => wire.encodeEmpty(type, id), decode };
}

module.exports = { Client, LatchkeyError, Answer: wire.Answer, DEFAULT_SOCKET };
