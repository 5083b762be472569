import type { Client, Terms } from "./index.js";

export interface Options extends Terms {
  client?: Client;
  /** Receives failures; the default is console.error. */
  log?: (text: string) => void;
}

export function latchkey(options?: Options): (request: any, reply: any) => Promise<unknown>;
