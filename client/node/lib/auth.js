// What the middleware for all frameworks has in common: from headers to a reply, as RFC 6750 §3.1 says.
"use strict";

const { Client, LatchkeyError } = require("../index.js");
const wire = require("./wire.js");

/** A request must not present more than one (RFC 6750 §2): whoever checks one of them, others may believe another. */
class SeveralCredentials extends Error {}

// Without the white space of RFC 9110 §5.6.3. (trim() also takes the byte 0xA0, in which a key may end, and a
// regular expression takes quadratic time for a header that is full of spaces.)
function trimmed(value) {
  const isSpace = (at) => value[at] === " " || value[at] === "\t";
  let start = 0, end = value.length;
  while (start < end && isSpace(start)) ++start;
  while (start < end && isSpace(end - 1)) --end;
  return value.slice(start, end);
}

/**
 * The key in `Authorization: Bearer KEY` or in `X-API-Key: KEY`, of a request's rawHeaders: names and values in turn.
 * (Of repeated headers, request.headers holds the first, or all of them joined.) Throws SeveralCredentials.
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

// A header's bytes come as characters 0 to 255; the key is those bytes.
const bytes = (text) => Buffer.from(text, "latin1");

const unavailable = { status: 503, error: "unavailable", header: ["Retry-After", "1"] };
const refusal = (status, error, challenge) => ({ status, error, header: ["WWW-Authenticate", challenge] });

/** From {client, log, ...terms} to rawHeaders => {answer} or {status, error, header}, which never rejects. */
function judge({ client = new Client(), log = console.error, ...demands } = {}) {
  wire.question(demands); // what cannot be asked is told when the program starts, not at each request
  const terms = structuredClone(demands); // whoever holds the lists may empty them
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
        // Our own fault, and no reason for the holder of the key to throw it away.
        log(`no answer: latchkeyd says ${answer.verdict}`);
        return unavailable;
      default:
        // Which no it is, is not a stranger's business.
        return refusal(401, "invalid_token", 'Bearer error="invalid_token"');
    }
  };
  return async (rawHeaders) => {
    try {
      return await decide(rawHeaders);
    } catch (error) {
      // A bug, ours or the log's. Thrown on, it might reach a handler that does not look for an error.
      try {
        log(`no answer: ${error?.stack ?? error}`);
      } catch {
        // Nobody can be told.
      }
      return unavailable;
    }
  };
}

module.exports = { SeveralCredentials, judge, presentedKey };
