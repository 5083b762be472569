// Common to the middleware of all frameworks: from headers to a reply, according to RFC 6750 §3.1.
"use strict";

const { Client, LatchkeyError } = require("../index.js");
const wire = require("./wire.js");

/** A request presents more than one credential (RFC 6750 §2 forbids it): another component might
 * use a different one. */
class SeveralCredentials extends Error {}

// Removes the white space of RFC 9110 §5.6.3. (trim() would also remove the byte 0xA0, in which a
// key may end, and a regular expression takes quadratic time for a header that is full of spaces.)
function trimmed(value) {
  const isSpace = (at) => value[at] === " " || value[at] === "\t";
  let start = 0, end = value.length;
  while (start < end && isSpace(start)) ++start;
  while (start < end && isSpace(end - 1)) --end;
  return value.slice(start, end);
}

/** Returns the key in `Authorization: Bearer KEY` or in `X-API-Key: KEY` of a request's rawHeaders,
 * which alternate names and values. (For repeated headers, request.headers holds only the first, or
 * all of them joined.) Throws SeveralCredentials.
 */
function presentedKey(rawHeaders) {
  let authorizations = 0;
  const keys = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase(), value = rawHeaders[i + 1];
    if (name === "authorization") {
      ++authorizations;
      if (/^bearer /i.test(value)) keys.push(trimmed(value.slice(7)));
    } else if (name === "x-api-key") {
      keys.push(trimmed(value));
    }
  }
  const presented = keys.filter(Boolean);
  if (authorizations > 1 || presented.length > 1) throw new SeveralCredentials();
  return presented[0];
}

// Node decodes a header's bytes to characters 0 to 255; the key consists of the bytes.
const bytes = (text) => Buffer.from(text, "latin1");

const unavailable = { status: 503, error: "unavailable", header: ["Retry-After", "1"] };
const refusal = (status, error, challenge) => ({ status, error, header: ["WWW-Authenticate", challenge] });

/** Turns {client, log, ...terms} into rawHeaders => {answer} or {status, error, header}, which
 * never rejects. */
function judge({ client = new Client(), log = console.error, ...demands } = {}) {
  wire.question(demands); // report invalid terms when the program starts, not at each request
  const terms = structuredClone(demands); // the owner of the lists may change them
  const decide = async (rawHeaders) => {
    let key;
    try {
      key = presentedKey(rawHeaders);
    } catch (error) {
      if (!(error instanceof SeveralCredentials)) throw error;
      return refusal(400, "invalid_request", 'Bearer error="invalid_request"');
    }
    if (key === undefined) return refusal(401, "missing_key", "Bearer");
    let answer;
    try {
      answer = await client.verify(bytes(key), terms);
    } catch (error) {
      if (!(error instanceof LatchkeyError)) throw error;
      log(`no answer (${error.failure}): ${error.message}`);
      return unavailable;
    }
    switch (answer.verdict) {
      case "valid":
        return { answer };
      case "insufficient_scope":
        return refusal(403, "insufficient_scope", 'Bearer error="insufficient_scope"');
      case "unavailable":
      case "forbidden":
        // A problem of this service: the holder of the key must not conclude that the key is bad.
        log(`no answer: latchkeyd says ${answer.verdict}`);
        return unavailable;
      default:
        // Do not reveal the reason to the holder.
        return refusal(401, "invalid_token", 'Bearer error="invalid_token"');
    }
  };
  return async (rawHeaders) => {
    try {
      return await decide(rawHeaders);
    } catch (error) {
      // A bug here or in log(). If it were thrown, it could reach a handler that ignores errors.
      try {
        log(`no answer: ${error?.stack ?? error}`);
      } catch {
        // The error cannot be reported.
      }
      return unavailable;
    }
  };
}

module.exports = { SeveralCredentials, judge, presentedKey };
