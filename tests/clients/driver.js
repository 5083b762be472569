// The Node counterpart of driver.c.
"use strict";

const readline = require("node:readline");
const { Client, LatchkeyError } = require("../../client/node");

const list = (word) => (word === "-" ? [] : word.split(","));

// max age, source, all scopes, any scopes; `-` means none.
function terms([maxAge, source, allScopes, anyScopes]) {
  return {
    maxAgeMs: maxAge === "any" ? undefined : Number(maxAge),
    source: source === "-" ? undefined : source,
    allScopes: list(allScopes),
    anyScopes: list(anyScopes),
  };
}

function told(answer) {
  const { verdict, fresh, ageMs, source, keyId, subject, tenant, scope, expires } = answer;
  return { verdict, fresh, age_ms: ageMs, source, key_id: keyId, sub: subject, tenant, scope, exp: expires };
}

async function run(client, [command, timeoutMs, ...rest]) {
  client.timeoutMs = Number(timeoutMs);
  switch (command) {
    case "ping":
      await client.ping();
      return {};
    case "sync":
      return { waited_us: await client.sync(Number(rest[0])) };
    case "status":
      return { json: await client.status() };
    case "why":
      return { json: await client.why(rest[4], terms(rest)) };
    default: {
      const keys = rest.slice(4);
      const answers = keys.length === 1
        ? [await client.verify(keys[0], terms(rest))]
        : await client.verifyMany(keys, terms(rest));
      return { answers: answers.map(told) };
    }
  }
}

async function main() {
  const client = new Client();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let result;
    try {
      result = await run(client, line.split("\t"));
    } catch (error) {
      if (!(error instanceof LatchkeyError)) throw error;
      result = { failure: error.failure, refusal: error.refusal, text: error.message };
    }
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
  client.close();
}

main();
