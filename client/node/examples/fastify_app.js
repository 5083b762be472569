// Fastify with Latchkey: every route needs a key except one, and one route needs a scope.
//
//     PORT=8000 node fastify_app.js
//     curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/me
"use strict";

const fastify = require("fastify")();
const { Client } = require("latchkey");
const { latchkey } = require("latchkey/fastify");

const client = new Client();
const anyKey = { onRequest: latchkey({ client, maxAgeMs: 60000 }) };
const writers = { onRequest: latchkey({ client, maxAgeMs: 60000, allScopes: ["write"] }) };

fastify.get("/health", async () => ({ status: "up" }));
fastify.get("/me", anyKey, async ({ latchkey: { subject, tenant, scopes } }) => ({ subject, tenant, scopes }));
fastify.post("/things", writers, async (request) => ({ created_by: request.latchkey.subject }));
fastify.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
