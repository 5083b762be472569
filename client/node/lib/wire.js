// Encodes requests and decodes replies (protocol/PROTOCOL.md). No sockets, no clock.
"use strict";

const { LatchkeyError } = require("./errors.js");

const VERIFY = 0x01, PING = 0x02, STATUS = 0x03, SYNC = 0x04, WHY = 0x05;
const VERIFIED = 0x81, WHY_REPLY = 0x85, ERROR = 0xff;

const HEADER_BYTES = 16;
const QUESTION_BYTES = 12;
const REQUEST_BYTES_MAX = 65536;
const REPLY_BYTES_MAX = 1050644;
const BATCH_KEYS_MAX = 256;
const KEY_BYTES_MAX = 4096;
const SCOPES_MAX = 32;
const SCOPE_BYTES_MAX = 255;
const SYNC_TIMEOUT_MS_MAX = 60000;
const MAX_AGE_ANY = 0xffffffff;
const AGE_UNKNOWN = 0xffffffff;

const VERDICTS = ["valid", "unknown", "malformed", "revoked", "disabled", "deleted", "expired",
  "not_yet_valid", "insufficient_scope", "forbidden", "unavailable"];
const REFUSALS = ["none", "bad_version", "bad_type", "bad_length", "bad_reserved", "bad_flags",
  "bad_count", "bad_source", "bad_scope", "truncated", "trailing", "bad_timeout", "unknown_source",
  "not_allowed", "timed_out", "overloaded", "stopping", "no_reasons", "operation_not_allowed"];
const TEXT_CLAIMS = { 1: "source", 2: "keyId", 3: "subject", 4: "tenant", 5: "scope", 7: "metadata" };
const CLAIM_EXPIRES = 6;

/** Bytes that violate the protocol; the message names the rule. */
class WireError extends Error {}

// ---- requests

/** A presented key as bytes. */
function bytesOf(key) {
  if (typeof key === "string") return Buffer.from(key, "utf8");
  if (key instanceof Uint8Array) return key;
  throw argument("a key is a string or bytes");
}

function argument(text) {
  return new LatchkeyError("argument", `this cannot be asked: ${text}`);
}

function scopesOf(list) {
  if (!Array.isArray(list)) throw argument("scopes come in an array");
  if (list.length > SCOPES_MAX) throw argument("more than 32 scopes in one list");
  return list.map((scope) => {
    const bytes = Buffer.from(String(scope), "utf8");
    if (bytes.length < 1 || bytes.length > SCOPE_BYTES_MAX) {
      throw argument("a scope must have 1 to 255 bytes");
    }
    if (bytes.some((byte) => byte <= 0x20 || byte === 0x7f)) {
      throw argument("a scope with a space or a control character");
    }
    return Buffer.concat([Buffer.of(bytes.length), bytes]);
  });
}

const TERMS = ["source", "allScopes", "anyScopes", "maxAgeMs", "claims", "metadata"];

/** Checks and encodes the terms of a request. Throws LatchkeyError "argument". */
function question(terms = {}) {
  for (const name of Object.keys(terms)) {
    // Ignoring a misspelt term would admit holders that it should refuse.
    if (!TERMS.includes(name)) throw argument(`there is no ${name}; there are ${TERMS.join(", ")}`);
  }
  const { source: wanted, allScopes = [], anyScopes = [], maxAgeMs, claims = true, metadata = false } = terms;
  // An empty source is more likely an unset variable than a request for every source.
  if (wanted !== undefined && wanted !== null && (typeof wanted !== "string" || !/^[A-Za-z0-9_.-]{1,63}$/.test(wanted))) {
    throw argument("a source has 1 to 63 characters out of A-Z a-z 0-9 _ - .");
  }
  const source = wanted ?? "";
  let age = MAX_AGE_ANY;
  if (maxAgeMs !== undefined && maxAgeMs !== null) {
    if (typeof maxAgeMs !== "number" || !(maxAgeMs >= 0)) throw argument("a maximum age is 0 milliseconds or more");
    // Rounded down: refusing slightly too early is safer than admitting too late.
    age = Math.floor(Math.min(maxAgeMs, MAX_AGE_ANY - 1));
  }
  const all = scopesOf(allScopes), any = scopesOf(anyScopes);
  const head = Buffer.alloc(QUESTION_BYTES);
  head.writeUInt16LE((claims ? 1 : 0) | (metadata ? 2 : 0), 0);
  head[2] = source.length;
  head[3] = all.length;
  head[4] = any.length;
  head.writeUInt32LE(age, 8);
  return Buffer.concat([head, Buffer.from(source, "latin1"), ...all, ...any]);
}

// A key over the limit is malformed; one byte over the limit suffices to get this verdict.
function sentLength(key) {
  return Math.min(key.length, KEY_BYTES_MAX + 1);
}

/** Divides the keys into as few requests as possible. */
function* batches(asked, keys) {
  const empty = HEADER_BYTES + asked.length;
  let start = 0, size = empty;
  for (let i = 0; i < keys.length; ++i) {
    const more = 2 + sentLength(keys[i]);
    if (i - start === BATCH_KEYS_MAX || size + more > REQUEST_BYTES_MAX) {
      yield keys.slice(start, i);
      start = i;
      size = empty;
    }
    size += more;
  }
  if (keys.length !== 0) yield keys.slice(start);
}

function frame(type, id, length) {
  // Not from Node's shared pool of buffers, because the frame is wiped once it is sent.
  const made = Buffer.alloc(length);
  made[0] = 1;
  made[1] = type;
  made.writeUInt32LE(length, 4);
  made.writeBigUInt64LE(BigInt(id), 8);
  return made;
}

/** Encodes a ping or status request. */
function encodeEmpty(type, id) {
  return frame(type, id, HEADER_BYTES);
}

function checkSyncTimeout(timeoutMs) {
  if (!(timeoutMs >= 1 && timeoutMs <= SYNC_TIMEOUT_MS_MAX)) {
    throw argument("a sync timeout is 1 to 60000 milliseconds");
  }
}

function encodeSync(id, timeoutMs) {
  const made = frame(SYNC, id, HEADER_BYTES + 4);
  made.writeUInt32LE(Math.floor(timeoutMs), HEADER_BYTES);
  return made;
}

/** Encodes a verify or why request for keys that fit into it. */
function encodeKeys(type, id, asked, keys) {
  let length = HEADER_BYTES + asked.length;
  for (const key of keys) length += 2 + sentLength(key);
  const made = frame(type, id, length);
  made.set(asked, HEADER_BYTES);
  if (type === WHY) made.writeUInt16LE(0, HEADER_BYTES);
  made.writeUInt16LE(keys.length, HEADER_BYTES + 6);
  let at = HEADER_BYTES + asked.length;
  for (const key of keys) {
    const bytes = sentLength(key);
    made.writeUInt16LE(bytes, at);
    made.set(bytes === key.length ? key : key.subarray(0, bytes), at + 2);
    at += 2 + bytes;
  }
  return made;
}

// ---- replies

/** Decodes the first HEADER_BYTES bytes. */
function decodeHeader(bytes) {
  const header = { type: bytes[1], length: bytes.readUInt32LE(4), id: bytes.readBigUInt64LE(8) };
  if (bytes[0] !== 1) throw new WireError("bad_version");
  if (bytes[2] !== 0 || bytes[3] !== 0) throw new WireError("bad_reserved");
  if (header.length < HEADER_BYTES || header.length > REPLY_BYTES_MAX) throw new WireError("bad_length");
  const known = (header.type >= VERIFIED && header.type <= WHY_REPLY) || header.type === ERROR;
  if (!known) throw new WireError("bad_type");
  return header;
}

function need(body, at, bytes, end = body.length) {
  if (end - at < bytes) throw new WireError("truncated");
}

function text(bytes) {
  if (bytes.includes(0)) throw new WireError("bad_length");
  return bytes.toString("utf8");
}

/** The daemon's verdict and data on one key. Only isValid is a yes: the object itself is always
 * truthy. */
class Answer {
  constructor(verdict, fresh, ageMs) {
    this.verdict = verdict;
    this.fresh = fresh;
    this.ageMs = ageMs;
  }
  get isValid() {
    return this.verdict === "valid";
  }
  get scopes() {
    return this.scope ? this.scope.split(" ") : [];
  }
}

function decodeVerified(body) {
  need(body, 0, 4);
  const count = body.readUInt16LE(0);
  if (body.readUInt16LE(2) !== 0) throw new WireError("bad_reserved");
  if (count > BATCH_KEYS_MAX) throw new WireError("bad_count");
  const answers = [];
  let at = 4;
  for (let i = 0; i < count; ++i) {
    need(body, at, 8);
    const verdict = body[at], flags = body[at + 1];
    const claims = body.readUInt16LE(at + 2), age = body.readUInt32LE(at + 4);
    at += 8;
    need(body, at, claims);
    const answer = new Answer(VERDICTS[verdict], flags === 1, age === AGE_UNKNOWN ? undefined : age);
    decodeClaims(body, at, at + claims, answer);
    // A newer daemon's verdict or flag has an unknown meaning: this key gets no answer.
    const isKnown = verdict < VERDICTS.length && flags <= 1;
    answers.push(isKnown ? answer : new Answer("unavailable", false, undefined));
    at += claims;
  }
  if (at !== body.length) throw new WireError("trailing");
  return answers;
}

function decodeClaims(body, at, end, answer) {
  while (at !== end) {
    need(body, at, 3, end);
    const tag = body[at], length = body.readUInt16LE(at + 1);
    at += 3;
    need(body, at, length, end);
    if (tag === CLAIM_EXPIRES) {
      if (length !== 8) throw new WireError("bad_length");
      answer.expires = Number(body.readBigInt64LE(at));
    } else if (TEXT_CLAIMS[tag] !== undefined) {
      answer[TEXT_CLAIMS[tag]] = text(body.subarray(at, at + length));
    }
    // Unknown tags are claims of a newer daemon: skip them by their length.
    at += length;
  }
}

function decodeEmpty(body) {
  if (body.length !== 0) throw new WireError("trailing");
}

/** Returns the waiting time in microseconds. */
function decodeSynced(body) {
  need(body, 0, 8);
  if (body.length !== 8) throw new WireError("trailing");
  return Number(body.readBigUInt64LE(0));
}

function decodeObject(body) {
  let value;
  try {
    value = JSON.parse(text(body));
  } catch {
    throw new WireError("no JSON");
  }
  if (typeof value !== "object" || value === null) throw new WireError("no JSON object");
  return value;
}

/** Returns the error's name and text. */
function decodeError(body) {
  need(body, 0, 4);
  const code = body.readUInt16LE(0), length = body.readUInt16LE(2);
  need(body, 4, length);
  const said = text(body.subarray(4, 4 + length));
  if (body.length !== 4 + length) throw new WireError("trailing");
  // A newer daemon may have more errors.
  return { name: REFUSALS[code] ?? `unknown_refusal_${code}`, text: said };
}

module.exports = {
  VERIFY, PING, STATUS, SYNC, WHY, ERROR, HEADER_BYTES, Answer, WireError, argument, batches, bytesOf,
  checkSyncTimeout, decodeEmpty, decodeError, decodeHeader, decodeObject, decodeSynced,
  decodeText: text, decodeVerified, encodeEmpty, encodeKeys, encodeSync, question,
};
