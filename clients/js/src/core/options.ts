/** Every bound and deadline of a session, with its default. Times in milliseconds, sizes in bytes. */
import type { Guard } from "./conflicts";
import type { Numbers } from "./values";

/** Who this device is; the server shows it to the user's other devices. */
export interface Hello {
  deviceId: string;
  sessionId?: string | undefined;
  deviceType?: string | undefined;
  deviceName?: string | undefined;
  osVersion?: string | undefined;
  appVersion?: string | undefined;
}

export interface Bounds {
  /** None, the default: the last writer of a key wins. Else `conflicts(policy)`, an import. */
  conflict: Guard | undefined;
  /** Integers that a number cannot hold: `bigint`, or the class `RawNumber` for every such number. */
  numbers: Numbers;
  /** One attempt, from the socket to AUTH_SUCCESS. A handshake that hangs is closed then. */
  connectTimeout: number;
  /** `connect` waits so long to be online, then throws ConnectFailed; 0 resolves at once. */
  startTimeout: number;
  /** `close` waits so long for acknowledgements of updates, then throws UnsentUpdates. */
  closeTimeout: number;
  /** For requests, and for one call of a `token` function. */
  requestTimeout: number;
  /** An update without an answer for so long is sent again, with the same id and number. */
  ackTimeout: number;
  /** After a probe of a silent connection. */
  probeTimeout: number;
  backoffBase: number;
  backoffCap: number;
  /** A connection that lived so long lets the waits start small again. */
  stableAfter: number;
  /** Updates that may wait for an acknowledgement. */
  queueUpdates: number;
  queueBytes: number;
  /** Updates on the way at once. */
  window: number;
}

export const BOUNDS: Bounds = {
  conflict: undefined,
  numbers: "bigint",
  connectTimeout: 10_000,
  startTimeout: 30_000,
  closeTimeout: 5_000,
  requestTimeout: 10_000,
  ackTimeout: 10_000,
  probeTimeout: 2_000,
  backoffBase: 250,
  backoffCap: 30_000,
  stableAfter: 5_000,
  queueUpdates: 1_000,
  queueBytes: 1_048_576,
  window: 32,
};
