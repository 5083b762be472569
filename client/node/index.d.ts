/** The daemon's default socket. */
export const DEFAULT_SOCKET: string;

export type Verdict =
  | "valid" | "unknown" | "malformed" | "revoked" | "disabled" | "deleted" | "expired"
  | "not_yet_valid" | "insufficient_scope" | "forbidden" | "unavailable";

export type Failure = "argument" | "connect" | "timeout" | "closed" | "protocol" | "refused";

/** There is no answer: admit no one. The message is for a log and never contains a key. */
export class LatchkeyError extends Error {
  readonly failure: Failure;
  /** If failure is "refused": the error's name in PROTOCOL.md. */
  readonly refusal?: string;
}

/** The daemon's verdict and data on one key. */
export class Answer {
  private constructor();
  /** True if the holder is admitted. (The object itself is always truthy.) */
  readonly isValid: boolean;
  readonly verdict: Verdict;
  /** True if no change is missing that committed longer ago than the daemon's bound. */
  readonly fresh: boolean;
  /** Milliseconds since the data was last proven complete; undefined: never, or no source asked. */
  readonly ageMs?: number;
  readonly source?: string;
  readonly keyId?: string;
  readonly subject?: string;
  readonly tenant?: string;
  /** The key's scopes, separated by one space. */
  readonly scope?: string;
  readonly scopes: string[];
  readonly metadata?: string;
  /** Seconds since 1970 UTC, rounded down. */
  readonly expires?: number;
}

export interface Terms {
  /** The default is every source that this process may use. */
  source?: string;
  /** The key must hold all of these. */
  allScopes?: string[];
  /** If there are any: the key must hold at least one of these. */
  anyScopes?: string[];
  /** Older data gives "unavailable". */
  maxAgeMs?: number;
  /** Return the key's claims (default: true). */
  claims?: boolean;
  /** Return the mapped metadata column. */
  metadata?: boolean;
}

export type Key = string | Uint8Array;

export class Client {
  /** The default path is $LATCHKEY_SOCKET, or else DEFAULT_SOCKET; the default timeout is 1000
   * ms. */
  constructor(options?: { path?: string; timeoutMs?: number });
  timeoutMs: number;
  verify(key: Key, terms?: Terms): Promise<Answer>;
  verifyMany(keys: Iterable<Key>, terms?: Terms): Promise<Answer[]>;
  ping(): Promise<void>;
  /** Resolves to the microseconds until every change committed before the call was in force. */
  sync(timeoutMs?: number): Promise<number>;
  status(): Promise<Record<string, unknown>>;
  why(key: Key, terms?: Terms): Promise<Record<string, unknown>>;
  close(): void;
}
