import type { IncomingMessage, ServerResponse } from "node:http";
import type { Answer, Client, Terms } from "./index.js";

export interface Options extends Terms {
  client?: Client;
  /** Receives failures; the default is console.error. */
  log?: (text: string) => void;
}

export function latchkey(options?: Options): (
  request: IncomingMessage & { latchkey?: Answer },
  response: ServerResponse,
  next: () => void,
) => void;
