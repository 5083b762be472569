import type { Client, Terms } from "./index.js";

export interface Options extends Terms {
  client?: Client;
  /** Where failures are told; console.error unless it is said otherwise. */
  log?: (text: string) => void;
}

export function latchkey(options?: Options): (request: any, reply: any) => Promise<unknown>;
