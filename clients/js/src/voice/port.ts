/** What the voice client needs of the library that carries the media. */

/** A way into a call, as `POST /api/voice/token` gives it. */
export interface Grant {
  readonly token: string;
  readonly sessionId: string;
  /** Of the media server, where the provider has one of its own. */
  readonly url?: string | undefined;
}

export type MediaState = "connected" | "reconnecting" | "lost";

export interface MediaEvents {
  /** `lost`: this connection does not come back by itself. */
  state(state: MediaState, reason: string): void;
  /** This user begins or ends to speak. */
  speaking(speaking: boolean): void;
  /** The microphone was switched, by whomever. */
  muted(muted: boolean): void;
  /** The browser plays nothing before the user has clicked: call `unlockAudio` then. */
  playbackBlocked(): void;
}

/** One connection to one call. */
export interface Connection {
  /** The provider's id of it. */
  readonly id: string;
  mute(muted: boolean): Promise<void>;
  unlockAudio(): Promise<void>;
  leave(): Promise<void>;
}

export interface MediaPort {
  /** @throws VoiceError */
  join(grant: Grant, muted: boolean, events: MediaEvents): Promise<Connection>;
}

export type VoiceCode =
  | "token_expired"
  | "session_full"
  | "network_error"
  | "permission_denied"
  | "device_error"
  | "unknown";

/** Why there is no call; `code` as in the error handler of RealTimeKit's set-up. */
export class VoiceError extends Error {
  readonly code: VoiceCode;
  constructor(code: VoiceCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "VoiceError";
    this.code = code;
  }
}

/** What a browser says when there is no microphone for us. */
export function deviceError(error: unknown): VoiceError {
  const name = error instanceof Error ? error.name : "";
  const denied = name === "NotAllowedError" || name === "SecurityError";
  return new VoiceError(
    denied ? "permission_denied" : "device_error",
    name || String(error),
    error,
  );
}
