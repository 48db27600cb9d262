/**
 * A user's voice in a channel: the microphone, a token, the media, and what the server is told of it.
 *
 * The server believes what this device reports, so it is told of a call only while the media is
 * connected: at once, on every new connection of the session, and at the interval that the server
 * names. A call whose media is away for too long, is lost, or belongs to another device is left.
 * What happens to one call happens in order; what comes of an older one is not heard.
 */
import { Emitter, type Listener } from "../core/events";
import { Backoff } from "../core/pacing";
import type { Token } from "../core/tokens";
import { Api, ApiError } from "../server";
import { callsOf, type Participant, type VoiceSession } from "./calls";
import {
  type Connection,
  deviceError,
  type Grant,
  type MediaPort,
  type MediaState,
  VoiceError,
} from "./port";

const REPORT = 30_000;
/** A call whose media does not come back for so long is left. */
const RECONNECTING = 20_000;
/** While the user speaks that is repeated: the server takes 2 s of silence for the end. */
const SPEAKING = 800;
const ATTEMPTS = 5;
const BACKOFF = 250;
const BACKOFF_CAP = 8_000;
/** Reasons for which a user is out of a call whatever is reported. */
const FINAL = new Set(["migration", "verified"]);

/** What the program shows; each is optional, and `error` is told as well. */
export interface VoiceHandlers {
  notifyUserSessionFull?(): void;
  showPermissionError?(): void;
  requestDevicePermissions?(): void;
  showGenericError?(error: VoiceError): void;
}

export interface VoiceOptions extends VoiceHandlers {
  session: VoiceSession;
  media: MediaPort;
  /** Of the server, `https://host`, and a token with a grant for the channel. */
  url: string;
  token: Token;
  /** Asks for the microphone; another one for tests. @throws what `getUserMedia` throws */
  microphone?(): Promise<void>;
}

export interface VoiceEvents {
  /** `undefined`: out of the call. */
  state: MediaState | undefined;
  muted: boolean;
  error: VoiceError;
  /** Another user is in the call, or is not any more. */
  participantJoined: Participant;
  participantLeft: Participant;
  /** This device is out of the call, not by its own doing. */
  left: { reason: string };
  playbackBlocked: undefined;
}

interface Joined {
  readonly waddleId: string;
  readonly channelId: string;
  grant: Grant;
  connection: Connection;
  state: MediaState;
}

export class VoiceClient {
  muted = false;
  readonly #options: VoiceOptions;
  readonly #api: Api;
  readonly #events = new Emitter<VoiceEvents>();
  readonly #stops: (() => void)[] = [];
  #call: Joined | undefined;
  #others: readonly Participant[] = [];
  #turn = 0;
  #interval = REPORT;
  #reports: ReturnType<typeof setTimeout> | undefined;
  #away: ReturnType<typeof setTimeout> | undefined;
  #speaking: ReturnType<typeof setInterval> | undefined;

  constructor(options: VoiceOptions) {
    this.#options = options;
    this.#api = new Api(options);
    const { session } = options;
    const calls = callsOf(session);
    this.#stops.push(calls.on((channelId, type, body) => this.#hear(channelId, type, body)));
    this.#stops.push(session.on("status", (now) => now === "online" && this.#report()));
    const gone = () => this.#call && session.tell("voice_leave", this.#place(this.#call));
    this.#stops.push(session.on("leaving", gone));
  }

  /** The channel whose call this device is in. */
  get channelId(): string | undefined {
    return this.#call?.channelId;
  }

  on<K extends keyof VoiceEvents>(name: K, listener: Listener<VoiceEvents[K]>): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * Join the call of a channel; an earlier one is left.
   *
   * @throws VoiceError, after the handler of its code was called
   */
  async joinVoiceChannel(waddleId: string, channelId: string): Promise<void> {
    await this.leaveVoiceChannel();
    const turn = ++this.#turn;
    try {
      // First: a token holds a seat for a minute only, and a user may think longer about this.
      await (this.#options.microphone ?? microphone)().catch((error) => {
        throw deviceError(error);
      });
      await this.#enter(waddleId, channelId, turn);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  async leaveVoiceChannel(): Promise<void> {
    const call = this.#forget();
    if (!call) return;
    this.#events.emit("state", undefined);
    const told = this.#options.session.request("voice_leave", this.#place(call));
    await Promise.allSettled([call.connection.leave(), told]);
  }

  /** @returns whether the microphone is off now */
  async toggleMute(): Promise<boolean> {
    const muted = !this.muted;
    // The media may report it before this returns.
    await this.#call?.connection.mute(muted);
    this.#onMuted(muted);
    return muted;
  }

  /** In a click, after `playbackBlocked`. */
  async unlockAudio(): Promise<void> {
    await this.#call?.connection.unlockAudio();
  }

  /** Leave, and hear no more of the session. */
  async close(): Promise<void> {
    await this.leaveVoiceChannel();
    for (const stop of this.#stops.splice(0)) stop();
  }

  // Into a call

  async #enter(waddleId: string, channelId: string, turn: number): Promise<void> {
    const waits = new Backoff(BACKOFF, BACKOFF_CAP, Math.random);
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(waddleId, channelId, turn);
      } catch (error) {
        const { code } = asVoiceError(error);
        const again =
          code === "network_error" ? attempt < ATTEMPTS : code === "token_expired" && !renewed;
        if (turn !== this.#turn || !again) throw error;
        renewed ||= code === "token_expired";
        if (code === "network_error") await pause(waits.next(wanted(error)));
      }
    }
  }

  async #once(waddleId: string, channelId: string, turn: number): Promise<void> {
    const grant: Grant = await this.#api.post("/api/voice/token", {
      header: { "X-Device-ID": this.#options.session.deviceId },
      body: { waddleId, channelId },
    });
    const events = {
      state: (state: MediaState, reason: string) =>
        turn === this.#turn && this.#onState(state, reason),
      speaking: (speaking: boolean) => turn === this.#turn && this.#onSpeaking(speaking),
      muted: (muted: boolean) => turn === this.#turn && this.#onMuted(muted),
      playbackBlocked: () => this.#events.emit("playbackBlocked", undefined),
    };
    const connection = await this.#options.media.join(grant, this.muted, events);
    if (turn !== this.#turn) return void (await connection.leave().catch(() => {}));
    this.#call = { waddleId, channelId, grant, connection, state: "connected" };
    this.#events.emit("state", "connected");
    this.#meet(channelId, waddleId);
    this.#report();
  }

  #failed(error: unknown): VoiceError {
    const why = asVoiceError(error);
    const { session, media, ...handlers } = this.#options;
    if (why.code === "session_full") handlers.notifyUserSessionFull?.();
    else if (why.code === "permission_denied") handlers.showPermissionError?.();
    else if (why.code === "device_error") handlers.requestDevicePermissions?.();
    else handlers.showGenericError?.(why);
    this.#events.emit("error", why);
    return why;
  }

  // What the server is told

  #place({ channelId, waddleId, connection }: Joined): object {
    return { channelId, waddleId, connectionId: connection.id };
  }

  /** This device is in the media. */
  #report(): void {
    const call = this.#call;
    if (!call) return;
    this.#arm();
    if (call.state !== "connected" || this.#options.session.status !== "online") return;
    const body = { ...this.#place(call), sessionId: call.grant.sessionId, muted: this.muted };
    void this.#options.session.request("voice_join", body).catch((error) => {
      if (error.retryable === false && call === this.#call) void this.#out(error.code);
    });
  }

  #arm(): void {
    clearTimeout(this.#reports);
    this.#reports = setTimeout(() => this.#report(), this.#interval);
  }

  // What happens in the media

  #onState(state: MediaState, reason: string): void {
    const call = this.#call;
    if (!call || call.state === state) return;
    call.state = state;
    clearTimeout(this.#away);
    this.#events.emit("state", state);
    if (state === "connected") this.#report();
    if (state === "reconnecting")
      this.#away = setTimeout(() => void this.#out("network_error"), RECONNECTING);
    if (state === "lost") void this.#out(reason);
  }

  #onSpeaking(speaking: boolean): void {
    clearInterval(this.#speaking);
    const say = () =>
      this.#options.session.tell("speaking", {
        channelId: this.channelId,
        waddleId: this.#call?.waddleId,
        isSpeaking: speaking,
      });
    say();
    this.#speaking = speaking ? setInterval(say, SPEAKING) : undefined;
  }

  #onMuted(muted: boolean): void {
    if (muted === this.muted) return;
    this.muted = muted;
    if (muted) clearInterval(this.#speaking);
    this.#events.emit("muted", muted);
    this.#report();
  }

  // What the server says

  #hear(channelId: string, type: string, body: Readonly<Record<string, unknown>>): void {
    const call = this.#call;
    if (!call || channelId !== call.channelId) return;
    if (![undefined, "", call.waddleId].includes(body.waddleId as string | undefined)) return;
    this.#meet(channelId, call.waddleId);
    const interval = body.reportIntervalMs;
    if (type === "voice_state" && typeof interval === "number" && interval !== this.#interval) {
      this.#interval = interval;
      this.#arm();
    }
    const { session } = this.#options;
    const mine = body.userId === session.userId;
    const released = body.state === "released" && body.deviceId === session.deviceId;
    const final = body.state === "disconnected" && mine && FINAL.has(String(body.reason));
    if (type === "session_ended" || (type === "voice_state_update" && (released || final)))
      void this.#out(String(body.reason ?? type));
    if (type === "session_migration" && body.newSessionId !== call.grant.sessionId)
      void this.#migrate(call);
  }

  /** Tell who of the others came and went. */
  #meet(channelId: string, waddleId: string): void {
    const { session } = this.#options;
    const people = callsOf(session).get(channelId, waddleId)?.participants ?? [];
    const before = this.#others;
    this.#others = people.filter(({ userId }) => userId !== session.userId);
    for (const one of without(before, this.#others)) this.#events.emit("participantLeft", one);
    for (const one of without(this.#others, before)) this.#events.emit("participantJoined", one);
  }

  /** Into the new session first, then out of the old one. */
  async #migrate({ waddleId, channelId, connection }: Joined): Promise<void> {
    const turn = ++this.#turn;
    try {
      await this.#enter(waddleId, channelId, turn);
      await connection.leave().catch(() => {});
    } catch (error) {
      this.#failed(error);
      if (turn === this.#turn) await this.#out("migration");
    }
  }

  async #out(reason: string): Promise<void> {
    if (!this.#call) return;
    await this.leaveVoiceChannel();
    this.#events.emit("left", { reason });
  }

  #forget(): Joined | undefined {
    this.#turn += 1;
    clearTimeout(this.#reports);
    clearTimeout(this.#away);
    clearInterval(this.#speaking);
    const call = this.#call;
    this.#call = undefined;
    this.#others = [];
    return call;
  }
}

/** Those whose users are not among others. */
function without(people: readonly Participant[], others: readonly Participant[]): Participant[] {
  return people.filter(({ userId }) => !others.some((other) => other.userId === userId));
}

/** What went wrong, as the program is told of it. */
export function asVoiceError(error: unknown): VoiceError {
  if (error instanceof VoiceError) return error;
  const { code = "", message = "" } = error as { code?: string; message?: string };
  if (code === "session_full") return new VoiceError("session_full", message, error);
  const spent = error instanceof ApiError && error.status === 401;
  if (spent) return new VoiceError("token_expired", message, error);
  const passes = (error as { retryable?: boolean }).retryable === true;
  return new VoiceError(passes ? "network_error" : "unknown", message, error);
}

function wanted(error: unknown): number {
  return error instanceof ApiError ? error.retryAfter : 0;
}

async function microphone(): Promise<void> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  for (const track of stream.getTracks()) track.stop();
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
