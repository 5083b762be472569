// Tests specific to the Node client.
"use strict";

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const { mkdtempSync, rmSync } = require("node:fs");
const { once } = require("node:events");
const net = require("node:net");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { after, before, beforeEach, test } = require("node:test");
const { Worker } = require("node:worker_threads");
const express = require("../express.js");
const fastify = require("../fastify.js");
const { Answer, Client, LatchkeyError } = require("../index.js");
const { SeveralCredentials, judge, presentedKey } = require("../lib/auth.js");

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

// A server that passes each request to reply() and sends the result.
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
  assert.equal(presentedKey(["Authorization", "Bearer a"]), "a");
  assert.equal(presentedKey(["authorization", "bearer  a "]), "a");
  assert.equal(presentedKey(["X-API-Key", " b"]), "b");
  assert.equal(presentedKey(["Authorization", "Basic eA==", "x-api-key", "b"]), "b");
  assert.equal(presentedKey(["Authorization", "Bearer ", "x-api-key", "b"]), "b");
  assert.equal(presentedKey(["Authorization", "Bearer "]), undefined);
  assert.equal(presentedKey(["x-api-key", " "]), undefined);
  assert.equal(presentedKey([]), undefined);
  // HTTP's white space is only the space and the tab; "voil\u00e0" ends in the byte 0xA0.
  assert.equal(presentedKey(["Authorization", "Bearer \t voil\u00c3\u00a0 \t"]), "voil\u00c3\u00a0");
  assert.equal(presentedKey(["X-API-Key", "\tvoil\u00c3\u00a0 "]), "voil\u00c3\u00a0");
  assert.equal(presentedKey(["X-API-Key", "\u00a0"]), "\u00a0");
});

test("a handler that throws runs once, and its error is not swallowed", () => {
  // Runs in its own process, which the error ends.
  const { stdout, stderr, status } = spawnSync(process.execPath, ["-e", `
    const { latchkey } = require("./express.js");
    const guard = latchkey({ client: { verify: async () => ({ verdict: "valid" }) } });
    guard({ rawHeaders: ["X-API-Key", "key"] }, {}, (...told) => {
      console.log("handler", told.length);
      throw new Error("of the handler");
    });`], { cwd: join(__dirname, ".."), encoding: "utf8" });
  assert.equal(stdout, "handler 0\n");
  assert.match(stderr, /Error: of the handler/);
  assert.notEqual(status, 0);
});

// Resolves to the Express middleware's reply: {status, body, headers}, or {next} if the request
// passes.
const asked = (options) => new Promise((resolve) => {
  const headers = {};
  express.latchkey(options)({ rawHeaders: ["X-API-Key", "key"] }, {
    setHeader: (name, value) => { headers[name] = value; },
    end(body) { resolve({ status: this.statusCode, body: JSON.parse(body), headers }); },
  }, (...next) => resolve({ next }));
});

test("whatever goes wrong lets nobody in", async () => {
  const silent = () => {};
  const fails = (error) => ({ async verify() { throw error; } });
  const none = Object.create(null); // cannot be converted to text
  const late = new LatchkeyError("timeout", "latchkeyd did not answer in time");
  for (const options of [
    { client: fails(new TypeError("a bug")), log: silent },
    { client: fails(none), log: silent },
    { client: fails(undefined), log: silent },
    { client: { verify: async () => undefined }, log: silent },
    { client: {}, log: silent },
    { client: fails(late), log: silent },
    { client: fails(late), log() { throw new Error("no room for a log"); } },
    { client: { verify: async () => ({ verdict: "unavailable" }) }, log() { throw new Error("no room for a log"); } },
  ]) {
    assert.deepEqual(await asked(options), {
      status: 503,
      body: { error: "unavailable" },
      headers: { "Retry-After": "1", "Content-Type": "application/json" },
    });
    const sent = [];
    const reply = {
      code(status) { sent.push(status); return this; },
      header() { return this; },
      send(body) { sent.push(body.error); return this; },
    };
    await fastify.latchkey(options)({ raw: { rawHeaders: ["X-API-Key", "key"] } }, reply);
    assert.deepEqual(sent, [503, "unavailable"]);
  }
});

test("a bug is told in the log", async () => {
  const told = [];
  await asked({ client: { async verify() { throw new TypeError("a bug"); } }, log: (text) => told.push(text) });
  assert.match(told.join(), /TypeError: a bug/);
});

test("what somebody else has answered is left alone", async () => {
  const response = { headersSent: true, setHeader() { throw new Error("ERR_HTTP_HEADERS_SENT"); } };
  express.latchkey({ client: {} })({ rawHeaders: [] }, response, () => assert.fail("let in"));
  await new Promise((resolve) => { setImmediate(resolve); }); // an unhandled rejection fails the test
});

test("several credentials are refused", async () => {
  const client = { verify() { throw new Error("asked"); } };
  for (const headers of [
    ["Authorization", "Bearer a", "Authorization", "Bearer b"],
    ["Authorization", "Bearer a", "authorization", "Bearer a"],
    ["Authorization", "Basic eA==", "Authorization", "Bearer b"],
    ["Authorization", "Bearer a", "X-API-Key", "b"],
    ["X-API-Key", "a", "x-api-key", "b"],
  ]) {
    assert.throws(() => presentedKey(headers), SeveralCredentials);
    const { status, error, answer } = await judge({ client })(headers);
    assert.deepEqual([status, error, answer], [400, "invalid_request", undefined]);
  }
});

test("demands last, whatever becomes of the lists that they came in", async () => {
  const told = [];
  const client = { verify: async (key, terms) => { told.push(terms.allScopes); return { verdict: "insufficient_scope" }; } };
  const options = { client, allScopes: ["admin"] };
  const decide = judge(options);
  options.allScopes.length = 0;
  options.allScopes = [];
  assert.equal((await decide(["X-API-Key", "k"])).status, 403);
  assert.deepEqual(told, [["admin"]]);
});

test("an empty source is no wish for every source", async () => {
  const client = new Client({ path, timeoutMs: 50 });
  for (const source of ["", " ", "a".repeat(64)]) {
    await assert.rejects(client.verify("key", { source }), { failure: "argument" });
  }
  await assert.rejects(client.verify("key", { maxAgeMs: "" }), { failure: "argument" });
});

test("scopes are split at one space", () => {
  assert.deepEqual(Object.assign(new Answer(), { scope: "read\u00a0admin a\u2003b" }).scopes, ["read\u00a0admin", "a\u2003b"]);
  assert.deepEqual(Object.assign(new Answer(), { scope: "" }).scopes, []);
});

test("what arrived while the loop was held up is an answer", async () => {
  // Runs on its own thread, so that it answers while the loop is blocked.
  const server = new Worker(`
    const net = require("node:net");
    const { workerData, parentPort } = require("node:worker_threads");
    net.createServer((socket) => socket.on("data", (request) => {
      const frame = Buffer.alloc(28);
      frame.set([1, 0x81, 0, 0, 28]);
      request.copy(frame, 8, 8, 16);
      frame.set([1, 0, 0, 0, 0, 1], 16);
      socket.write(frame);
    })).listen(workerData, () => parentPort.postMessage("listens"));`, { eval: true, workerData: path });
  await once(server, "message");
  const client = new Client({ path, timeoutMs: 200 });
  assert.ok((await client.verify("key")).isValid);
  for (let round = 0; round < 3; ++round) {
    const call = client.verify("key");
    await new Promise((resolve) => { setImmediate(resolve); }); // the request has been sent
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
    assert.ok((await call).isValid);
  }
  client.close();
  await server.terminate();
});

test("a timeout is a number, however large", async () => {
  for (const timeoutMs of ["1000", NaN, -1, null]) {
    assert.throws(() => new Client({ path, timeoutMs }), { failure: "argument" });
  }
  const server = await serve(valid);
  for (const timeoutMs of [2 ** 31, 1e15, Infinity]) {
    const client = new Client({ path, timeoutMs });
    assert.ok((await client.verify("key")).isValid);
    client.close();
  }
  server.close();
});
