// What only the Node client has to show.
"use strict";

const assert = require("node:assert/strict");
const { mkdtempSync, rmSync } = require("node:fs");
const net = require("node:net");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { after, before, beforeEach, test } = require("node:test");
const { Client, LatchkeyError } = require("../index.js");
const { judge, presentedKey } = require("../lib/auth.js");

let folder, path, number = 0;
before(() => { folder = mkdtempSync(join(tmpdir(), "latchkey-node-")); });
after(() => rmSync(folder, { recursive: true }));
beforeEach(() => { path = join(folder, String(++number)); });

function valid(id) {
  const frame = Buffer.alloc(28);
  frame.set([1, 0x81, 0, 0, 28]);
  frame.writeBigUInt64LE(id, 8);
  frame.set([1, 0, 0, 0, 0, 1], 16);
  return frame;
}

// A server that has reply() make of each request what is sent back.
async function serve(reply) {
  const server = net.createServer((socket) => {
    ++server.count;
    let bytes = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (part) => {
      bytes = Buffer.concat([bytes, part]);
      while (bytes.length >= 16 && bytes.length >= bytes.readUInt32LE(4)) {
        socket.write(reply(bytes.readBigUInt64LE(8), server.count));
        bytes = bytes.subarray(bytes.readUInt32LE(4));
      }
    });
  });
  server.count = 0;
  await new Promise((resolve) => { server.listen(path, resolve); });
  return server;
}

test("calls share one connection, in any number", async () => {
  const server = await serve(valid);
  const client = new Client({ path, timeoutMs: 30000 });
  const answers = await Promise.all(Array.from({ length: 10000 }, () => client.verify("key")));
  assert.equal(answers.filter((answer) => answer.isValid).length, 10000);
  assert.equal(server.count, 1);
  client.close();
  server.close();
});

test("one deadline that passes lets the others ask again", async () => {
  const server = await serve((id, count) => (count === 1 ? Buffer.alloc(0) : valid(id)));
  const client = new Client({ path, timeoutMs: 100 });
  const hasty = client.verify("key");
  client.timeoutMs = 30000;
  const patient = client.verify("key");
  await assert.rejects(hasty, { failure: "timeout" });
  assert.ok((await patient).isValid);
  client.close();
  server.close();
});

test("what is under way ends with the client, which then says that it is closed", async () => {
  const server = await serve(() => Buffer.alloc(0));
  const client = new Client({ path, timeoutMs: 30000 });
  const call = client.verify("key");
  client.close();
  await assert.rejects(call, { failure: "closed" });
  await assert.rejects(client.verify("key"), { failure: "argument" });
  server.close();
});

test("a misspelt demand is no demand that is met", async () => {
  const client = new Client({ path, timeoutMs: 50 });
  await assert.rejects(client.verify("key", { allscopes: ["admin"] }), { failure: "argument" });
  await assert.rejects(client.verify("key", { allScopes: "admin" }), { failure: "argument" });
  await assert.rejects(client.verify(undefined), { failure: "argument" });
  assert.throws(() => judge({ client, anyscopes: ["admin"] }), { failure: "argument" });
});

test("no error holds the key", async () => {
  const client = new Client({ path, timeoutMs: 20 });
  await assert.rejects(client.verify("sk_secret"), (error) => {
    assert.ok(error instanceof LatchkeyError);
    assert.equal(error.failure, "connect");
    assert.ok(!JSON.stringify({ ...error, text: error.stack }).includes("sk_secret"));
    return true;
  });
});

test("where a key is presented", () => {
  assert.equal(presentedKey({ authorization: "Bearer a" }), "a");
  assert.equal(presentedKey({ authorization: "bearer  a " }), "a");
  assert.equal(presentedKey({ "x-api-key": " b" }), "b");
  assert.equal(presentedKey({ authorization: "Basic eA==", "x-api-key": "b" }), "b");
  assert.equal(presentedKey({ authorization: "Bearer a", "x-api-key": "b" }), "a");
  assert.equal(presentedKey({ authorization: "Bearer ", "x-api-key": "b" }), "b");
  assert.equal(presentedKey({ authorization: "Bearer " }), undefined);
  assert.equal(presentedKey({ "x-api-key": " " }), undefined);
  assert.equal(presentedKey({}), undefined);
});
