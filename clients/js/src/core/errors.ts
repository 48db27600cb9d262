/**
 * What a caller of the client can be told. Each error has a `code` for programs and says whether
 * trying again can help (`retryable`).
 */

/** Base of everything that the client throws on its own. */
export class ClientError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  constructor(code: string, message: string, retryable = false, options?: ErrorOptions) {
    super(message, options);
    // Names of classes do not survive minification; `code` says which one it is.
    this.name = "ClientError";
    this.code = code;
    this.retryable = retryable;
  }
}

/** The update cannot be sent: not JSON, a bad key, or too large. Nothing was queued. */
export class InvalidUpdate extends ClientError {
  constructor(message: string) {
    super("invalid_update", message);
  }
}

/** Too much waits to be acknowledged; nothing was queued. */
export class QueueFull extends ClientError {
  constructor(message: string) {
    super("queue_full", message, true);
  }
}

/** The server refused an update for good; its optimistic effect has been taken back. */
export class UpdateRefused extends ClientError {
  readonly details: Readonly<Record<string, unknown>>;
  constructor(code: string, message: string, details: Record<string, unknown> = {}) {
    super(code, `${code}: ${message}`);
    this.details = details;
  }
}

/** No connection within the deadline; `cause` is the last reason. */
export class ConnectFailed extends ClientError {
  constructor(message: string, cause?: unknown) {
    super("connect_failed", message, true, { cause });
  }
}

/** The session has ended and does not connect again. `closeCode`: of the WebSocket. */
export class SessionClosed extends ClientError {
  readonly closeCode: number;
  readonly reason: string;
  constructor(closeCode: number, reason: string) {
    super("session_closed", `${closeCode} ${reason}`.trim());
    this.closeCode = closeCode;
    this.reason = reason;
  }
}

/** Updates were not acknowledged when the session ended. `keys`: of each, in order. */
export class UnsentUpdates extends ClientError {
  readonly keys: readonly (readonly string[])[];
  constructor(keys: readonly (readonly string[])[]) {
    super("unsent_updates", `${keys.length} updates were not acknowledged`);
    this.keys = keys;
  }
}

/** A request over the socket failed. `code`: of the protocol, or `timeout`, `disconnected`. */
export class RequestFailed extends ClientError {
  constructor(code: string, detail = "", retryable = true) {
    super(code, detail ? `${code}: ${detail}` : code, retryable);
  }
}

/** Thrown by a `token` function to say that the login is over: the session ends. */
export class UnauthorizedError extends ClientError {
  constructor(message = "signed out") {
    super("unauthorized", message);
  }
}

/** The browser's storage failed or is full. */
export class StorageError extends ClientError {
  constructor(message: string, cause?: unknown) {
    super("storage_error", message, true, { cause });
  }
}

/** No answer within the time that was given; what was asked for goes on. */
export class TimedOut extends ClientError {
  constructor(message: string) {
    super("timeout", message, true);
  }
}
