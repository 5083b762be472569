// One connection, pipelined: replies come in the order of the requests.
"use strict";

const { randomBytes } = require("node:crypto");
const net = require("node:net");
const { LatchkeyError } = require("./errors.js");
const wire = require("./wire.js");

// Errors that occur while a daemon restarts or is overloaded. AF_UNIX's connect(2) does not wait
// for room in a full backlog: it fails with EAGAIN.
const MAY_PASS = ["ENOENT", "ECONNREFUSED", "EAGAIN", "ECONNRESET"];
const HINTS = {
  ENOENT: "Is latchkeyd running, and is this its socket?",
  ECONNREFUSED: "latchkeyd is not running.",
  EACCES: "This user may not open it: see latchkeyd's `mode` and `group`.",
  EAGAIN: "Too many wait to be connected.",
};
const GOES_ON = ["unknown_source", "timed_out", "no_reasons", "operation_not_allowed"];

function closed(text = "latchkeyd closed the connection before it answered") {
  return new LatchkeyError("closed", text, { mayPass: true });
}

function notLatchkeyd(error) {
  return new LatchkeyError("protocol", `what answers does not speak latchkeyd's protocol (${error.message})`);
}

function refused({ name, text }) {
  // An impostor must not write lines into a log.
  const printable = text.replace(/[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu, "?");
  return new LatchkeyError("refused", `latchkeyd refused: ${printable} (${name})`, {
    refusal: name,
    mayPass: name === "overloaded" || name === "stopping",
  });
}

class Connection {
  constructor(path) {
    this.usable = true;
    this._pending = []; // {id, type, decode, resolve, reject}; a queue that starts at _first
    this._first = 0;
    // Starts at an unpredictable number: a reply to another client's request matches none.
    this._lastId = randomBytes(8).readBigUInt64LE();
    this._parts = [];
    this._size = 0;
    this._need = wire.HEADER_BYTES;
    this._connected = false;
    this._socket = net.connect({ path, allowHalfOpen: false });
    this._socket.on("connect", () => { this._connected = true; });
    this._socket.on("data", (part) => this._receive(part));
    this._socket.on("error", (error) => { this.end(this._connected ? closed() : unreachable(path, error)); });
    this._socket.on("close", () => this.end(closed()));
    this._keepAlive();
  }

  get pending() {
    return this._pending.length - this._first;
  }

  // A program without requests under way may exit; a program that waits for a reply may not.
  _keepAlive() {
    if (this.pending === 0) this._socket.unref();
    else this._socket.ref();
  }

  /** Resolves to the reply to a request; the frame is wiped once it is sent. */
  ask(request) {
    this._lastId = BigInt.asUintN(64, this._lastId + 1n) || 1n; // 0 stands for the connection
    const id = this._lastId;
    return new Promise((resolve, reject) => {
      this._pending.push({ id, type: request.type, decode: request.decode, resolve, reject });
      this._keepAlive();
      const frame = request.encode(id);
      this._socket.write(frame, () => frame.fill(0));
    });
  }

  /** Closes the connection; all requests under way fail with `error`. */
  end(error) {
    this.usable = false;
    this._socket.destroy();
    const left = this._pending.slice(this._first);
    this._pending = [];
    this._first = 0;
    for (const one of left) one.reject(error);
  }

  _receive(part) {
    this._parts.push(part);
    this._size += part.length;
    try {
      while (this.usable && this._size >= this._need) this._readFrame();
    } catch (error) {
      if (!(error instanceof wire.WireError)) throw error;
      this.end(notLatchkeyd(error));
    }
  }

  _readFrame() {
    const bytes = this._parts.length === 1 ? this._parts[0] : Buffer.concat(this._parts, this._size);
    const header = wire.decodeHeader(bytes);
    this._parts = [bytes];
    this._need = header.length;
    if (bytes.length < header.length) return;
    this._parts = [bytes.subarray(header.length)];
    this._size -= header.length;
    this._need = wire.HEADER_BYTES;
    this._reply(header, bytes.subarray(wire.HEADER_BYTES, header.length));
  }

  _reply(header, body) {
    if (header.type === wire.ERROR && header.id === 0n) {
      // Concerns the connection, not a request.
      this.end(refused(wire.decodeError(body)));
      return;
    }
    const first = this._pending[this._first];
    const fits = first !== undefined && header.id === first.id;
    if (!fits || (header.type !== (first.type | 0x80) && header.type !== wire.ERROR)) {
      throw new wire.WireError("bad_type");
    }
    if (header.type === wire.ERROR) {
      const error = refused(wire.decodeError(body));
      this._pop().reject(error);
      if (!GOES_ON.includes(error.refusal)) {
        this.end(closed("latchkeyd closed after it refused another request"));
      }
      return;
    }
    const value = first.decode(body); // if it throws, this request fails with the others
    this._pop().resolve(value);
  }

  _pop() {
    const first = this._pending[this._first++];
    if (this._first === this._pending.length || this._first === 1024) {
      this._pending = this._pending.slice(this._first);
      this._first = 0;
    }
    this._keepAlive();
    return first;
  }
}

function unreachable(path, error) {
  const hint = HINTS[error.code] ?? "";
  const text = `cannot connect to ${path}: ${error.code ?? error.message}. ${hint}`;
  return new LatchkeyError("connect", text.trim(), { mayPass: MAY_PASS.includes(error.code) });
}

module.exports = { Connection, closed };
