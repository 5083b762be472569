// A hook for Fastify.
"use strict";

const { judge } = require("./lib/auth.js");

/** fastify.addHook("onRequest", latchkey({ allScopes: ["read"] })) stores the answer in
 * request.latchkey. */
function latchkey(options) {
  const decide = judge(options);
  return async (request, reply) => {
    const { answer, status, error, header } = await decide(request.raw.rawHeaders);
    if (answer) {
      request.latchkey = answer;
      return undefined;
    }
    return reply.code(status).header(...header).send({ error });
  };
}

module.exports = { latchkey };
