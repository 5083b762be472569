// Middleware for Express and other frameworks with handlers (request, response, next).
"use strict";

const { judge } = require("./lib/auth.js");

/** app.use(latchkey({ allScopes: ["read"] })) stores the answer in request.latchkey. */
function latchkey(options) {
  const decide = judge(options);
  return (request, response, next) => {
    // An exception of next() belongs to the handler; it must not call the handler again.
    decide(request.rawHeaders).then(({ answer, status, error, header }) => {
      if (answer) {
        request.latchkey = answer;
        next();
        return;
      }
      if (response.headersSent) return; // other code has already answered
      response.statusCode = status;
      response.setHeader(...header);
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ error }));
    });
  };
}

module.exports = { latchkey };
