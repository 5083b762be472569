// Tests with the frames of tests/vectors/wire.txt; the head of that file explains the format.
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { test } = require("node:test");
const wire = require("../lib/wire.js");

const unescaped = (text) =>
  Buffer.from(text.replace(/\\x([0-9a-f]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))), "latin1");
const escaped = (text) => [...Buffer.from(text, "utf8")].map((byte) =>
  (byte >= 0x20 && byte <= 0x7e && byte !== 0x5c
    ? String.fromCharCode(byte)
    : `\\x${byte.toString(16).padStart(2, "0")}`)).join("");

function vectors() {
  const file = readFileSync(join(__dirname, "../../../tests/vectors/wire.txt"), "latin1");
  return file.split("\n\n").map((block) => {
    const vector = { frame: "", meaning: [] };
    for (const line of block.split("\n")) {
      if (line === "" || line.startsWith("#")) continue;
      const at = line.indexOf(":");
      const name = line.slice(0, at), value = line.slice(at + 1).replace(/^ /, "");
      if (name === "hex") vector.frame += value.replaceAll(" ", "");
      else if (["name", "direction", "reader", "error"].includes(name)) vector[name] = value;
      else vector.meaning.push([name, value]);
    }
    vector.frame = Buffer.from(vector.frame, "hex");
    return vector;
  }).filter((vector) => vector.name !== undefined);
}

const all = (vector, name) => vector.meaning.filter(([known]) => known === name).map(([, value]) => value);

function written(vector) {
  const type = vector.frame[1], id = BigInt(all(vector, "request_id")[0]);
  if (type === wire.PING || type === wire.STATUS) return wire.encodeEmpty(type, id);
  if (type === wire.SYNC) return wire.encodeSync(id, Number(all(vector, "timeout_ms")[0]));
  const [flags = ""] = all(vector, "flags"), [age] = all(vector, "max_age_ms");
  const asked = wire.question({
    source: all(vector, "source")[0] || undefined,
    allScopes: all(vector, "all_scope"),
    anyScopes: all(vector, "any_scope"),
    maxAgeMs: age === "any" ? undefined : Number(age),
    claims: flags.includes("claims"),
    metadata: flags.includes("metadata"),
  });
  return wire.encodeKeys(type, id, asked, all(vector, "key").map(unescaped));
}

const KINDS = { 0x81: "verified", 0x82: "pong", 0x83: "status_reply", 0x84: "synced", 0x85: "why_reply", 0xff: "error" };
const CLAIMS = { source: "source", key_id: "keyId", subject: "subject", tenant: "tenant", scope: "scope",
  expires: "expires", metadata: "metadata" };

function read(frame) {
  const header = wire.decodeHeader(frame);
  const body = frame.subarray(wire.HEADER_BYTES);
  const kind = KINDS[header.type];
  const meaning = [["type", kind], ["request_id", String(header.id)]];
  if (kind === "verified") {
    for (const answer of wire.decodeVerified(body)) {
      meaning.push(["answer", `${answer.verdict} ${answer.fresh ? "fresh" : "old"} ${answer.ageMs ?? "unknown"}`]);
      for (const [name, member] of Object.entries(CLAIMS)) {
        if (answer[member] !== undefined) meaning.push([name, escaped(String(answer[member]))]);
      }
    }
  } else if (kind === "error") {
    const { name, text } = wire.decodeError(body);
    meaning.push(["code", name], ["text", escaped(text)]);
  } else if (kind === "synced") {
    meaning.push(["waited_us", String(wire.decodeSynced(body))]);
  } else if (kind === "pong") {
    wire.decodeEmpty(body);
  } else {
    meaning.push(["json", escaped(wire.decodeText(body))]);
  }
  return meaning;
}

function ofLength(bytes) {
  const frame = Buffer.from(bytes);
  frame.writeUInt32LE(frame.length, 4);
  return frame;
}

const found = vectors();
test("the table has been read", () => assert.ok(found.length > 60));
for (const vector of found) {
  if (vector.error !== undefined && vector.reader === "client" && vector.meaning.length === 0) {
    test(vector.name, () => assert.throws(() => read(vector.frame), { message: vector.error }));
  } else if (vector.meaning.length !== 0 && vector.frame[1] < 0x80) {
    test(vector.name, () => assert.equal(written(vector).toString("hex"), vector.frame.toString("hex")));
  } else if (vector.meaning.length !== 0) {
    test(vector.name, () => {
      assert.deepEqual(read(vector.frame), vector.meaning);
      if (["status_reply", "why_reply"].includes(KINDS[vector.frame[1]])) return; // their text ends with their frame
      for (let length = wire.HEADER_BYTES; length < vector.frame.length; ++length) {
        assert.throws(() => read(ofLength(vector.frame.subarray(0, length))), { message: "truncated" });
      }
      assert.throws(() => read(ofLength(Buffer.concat([vector.frame, Buffer.of(0)]))), { message: "trailing" });
    });
  }
}
