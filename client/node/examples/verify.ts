// Reads a key from standard input and prints whether its holder is admitted.
import { Client, LatchkeyError, type Answer } from "latchkey";
import { latchkey as forExpress } from "latchkey/express";
import { latchkey as forFastify } from "latchkey/fastify";
import { readFileSync } from "node:fs";

const client = new Client({ timeoutMs: 500 });

export const middleware = [forExpress({ client, allScopes: ["read"] }), forFastify({ client, maxAgeMs: 60000 })];

async function main(): Promise<void> {
  try {
    const answer: Answer = await client.verify(readFileSync(0, "utf8").trimEnd());
    console.log(answer.isValid ? `in, as ${answer.subject}` : `out: ${answer.verdict}`);
  } catch (error) {
    if (!(error instanceof LatchkeyError)) throw error;
    console.error(`no answer: ${error.message}`);
    process.exitCode = 1;
  }
}

void main();
