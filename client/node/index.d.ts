/** Where the daemon listens unless it is configured otherwise. */
export const DEFAULT_SOCKET: string;

export type Verdict =
  | "valid" | "unknown" | "malformed" | "revoked" | "disabled" | "deleted" | "expired"
  | "not_yet_valid" | "insufficient_scope" | "forbidden" | "unavailable";

export type Failure = "argument" | "connect" | "timeout" | "closed" | "protocol" | "refused";

/** There is no answer: let nobody in. The message is for a log and never holds a key. */
export class LatchkeyError extends Error {
  readonly failure: Failure;
  /** If failure is "refused": the name of PROTOCOL.md's error. */
  readonly refusal?: string;
}

/** What the daemon knows of one key. */
export class Answer {
  private constructor();
  /** May the holder in? (The object itself is truthy whatever it holds.) */
  readonly isValid: boolean;
  readonly verdict: Verdict;
  /** No change that committed longer ago than the daemon's bound is missing. */
  readonly fresh: boolean;
  /** Since what it was taken from was last proven complete; undefined: never, or nothing was asked. */
  readonly ageMs?: number;
  readonly source?: string;
  readonly keyId?: string;
  readonly subject?: string;
  readonly tenant?: string;
  /** The key's scopes, a space between two. */
  readonly scope?: string;
  readonly scopes: string[];
  readonly metadata?: string;
  /** Seconds since 1970 UTC, rounded down. */
  readonly expires?: number;
}

export interface Terms {
  /** Every source that this process may use, if it is left out. */
  source?: string;
  /** The key must hold every one of these, */
  allScopes?: string[];
  /** and, if there are any, at least one of these. */
  anyScopes?: string[];
  /** Older knowledge gives "unavailable". */
  maxAgeMs?: number;
  /** Tell whose key it is (true unless it is said otherwise). */
  claims?: boolean;
  /** Tell the mapped metadata column. */
  metadata?: boolean;
}

export type Key = string | Uint8Array;

export class Client {
  /** The path is $LATCHKEY_SOCKET or else the default; a call takes 1000 ms at most. */
  constructor(options?: { path?: string; timeoutMs?: number });
  timeoutMs: number;
  verify(key: Key, terms?: Terms): Promise<Answer>;
  verifyMany(keys: Iterable<Key>, terms?: Terms): Promise<Answer[]>;
  ping(): Promise<void>;
  /** Microseconds until everything was in force that had committed before the call. */
  sync(timeoutMs?: number): Promise<number>;
  status(): Promise<Record<string, unknown>>;
  why(key: Key, terms?: Terms): Promise<Record<string, unknown>>;
  close(): void;
}
