// Express with Latchkey: every route needs a key except one, and one route needs a scope.
//
//     PORT=8000 node express_app.js
//     curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/me
"use strict";

const express = require("express");
const { Client } = require("latchkey");
const { latchkey } = require("latchkey/express");

const client = new Client();
const anyKey = latchkey({ client, maxAgeMs: 60000 });
const writers = latchkey({ client, maxAgeMs: 60000, allScopes: ["write"] });

const app = express();
app.get("/health", (request, response) => response.json({ status: "up" }));
app.get("/me", anyKey, ({ latchkey: { subject, tenant, scopes } }, response) => {
  response.json({ subject, tenant, scopes });
});
app.post("/things", writers, (request, response) => {
  response.json({ created_by: request.latchkey.subject });
});
app.listen(Number(process.env.PORT), "127.0.0.1");
