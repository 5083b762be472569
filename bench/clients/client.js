// The same as client.c for Node.
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { Client } = require("../../client/node");

const AT_ONCE = 64;

async function main() {
  const [mode, seconds] = process.argv.slice(2);
  const keys = readFileSync(0, "latin1").trim().split("\n");
  const client = new Client();
  const started = performance.now(), until = started + 1000 * Number(seconds);
  let answers = 0;
  async function ask() {
    while (performance.now() < until) {
      assert.ok((await client.verify(keys[answers % keys.length])).isValid);
      ++answers;
    }
  }
  if (mode !== "batch") await Promise.all(Array.from({ length: mode === "one" ? 1 : AT_ONCE }, ask));
  while (performance.now() < until) {
    const at = answers % (keys.length - AT_ONCE);
    for (const answer of await client.verifyMany(keys.slice(at, at + AT_ONCE))) {
      assert.ok(answer.isValid);
      ++answers;
    }
  }
  console.log(JSON.stringify({ answers, seconds: (performance.now() - started) / 1000 }));
}

main();
