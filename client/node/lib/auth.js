// What the middleware for all frameworks has in common: from headers to a reply, as RFC 6750 §3.1 says.
"use strict";

const { Client, LatchkeyError } = require("../index.js");
const wire = require("./wire.js");

/** The key in `Authorization: Bearer KEY`, or else in `X-API-Key: KEY`. */
function presentedKey(headers) {
  const bearer = /^bearer +(.*)$/i.exec(headers.authorization ?? "")?.[1].trim();
  const apiKey = headers["x-api-key"];
  return bearer || (typeof apiKey === "string" && apiKey.trim()) || undefined;
}

// A header's bytes come as characters 0 to 255; the key is those bytes.
const bytes = (text) => Buffer.from(text, "latin1");

const unavailable = { status: 503, error: "unavailable", header: ["Retry-After", "1"] };
const refusal = (status, error, challenge) => ({ status, error, header: ["WWW-Authenticate", challenge] });

/** From {client, log, ...terms} to headers => {answer} or {status, error, header}. */
function judge({ client = new Client(), log = console.error, ...terms } = {}) {
  wire.question(terms); // what cannot be asked is told when the program starts, not at each request
  return async (headers) => {
    const key = presentedKey(headers);
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
}

module.exports = { judge, presentedKey };
