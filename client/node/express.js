// Middleware for Express and whatever takes (request, response, next).
"use strict";

const { judge } = require("./lib/auth.js");

/** app.use(latchkey({ allScopes: ["read"] })); the answer is then request.latchkey. */
function latchkey(options) {
  const decide = judge(options);
  return (request, response, next) => {
    // What next() throws is the handler's, and not to be given to it once more.
    decide(request.rawHeaders).then(({ answer, status, error, header }) => {
      if (answer) {
        request.latchkey = answer;
        next();
        return;
      }
      if (response.headersSent) return; // somebody else has answered
      response.statusCode = status;
      response.setHeader(...header);
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ error }));
    });
  };
}

module.exports = { latchkey };
