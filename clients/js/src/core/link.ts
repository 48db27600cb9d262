/**
 * The connections of one session, one after another.
 *
 * | state | left by |
 * |---|---|
 * | idle | `start` → authorizing |
 * | authorizing | a token → connecting; none → waiting, or ended when the login is over |
 * | connecting | AUTH_SUCCESS → ready; failure or deadline → waiting, or ended |
 * | ready | the end of the connection, or silence → waiting, or ended |
 * | waiting | its time, or `hurry` → authorizing |
 * | sleeping | `resume` → authorizing |
 *
 * Everything that happens (a timer, a message, an update, an event of the page) leads to `pump`,
 * which looks at the clock and does what is due. So nothing depends on a timer that comes in time:
 * those of hidden pages come once a minute, those of frozen ones not at all.
 */
import type { Dialogue } from "./dialogue";
import type { Env, Explanation, SocketLike } from "./env";
import type { Events } from "./events";
import * as T from "./kinds";
import { ABNORMAL, AUTH_FAILED, NORMAL, TOKEN_EXPIRED } from "./kinds";
import type { Bounds } from "./options";
import { Backoff, NEVER } from "./pacing";
import { margin, NoToken, type TokenKeeper } from "./tokens";
import {
  BUFFER,
  BUFFER_WAIT,
  GOODBYE,
  GRACE,
  HURRY,
  MIN_RENEWAL,
  RENEWAL_RETRY,
  SILENCE,
  STALE,
} from "./waits";

type State = "idle" | "authorizing" | "connecting" | "ready" | "waiting" | "sleeping" | "ended";

/** Close codes after which connecting again makes no sense. Unknown ones are worth a try. */
const FINAL = new Set([1000, 1002, 1007, 1009, 4002, 4003, 4005, 4009, 4010, 4011]);
const NO_CONNECTION = "no connection";
/** HTTP statuses of a refused handshake that pass. 426: it would be accepted. */
const PASSING = new Set([408, 425, 426, 429]);

export interface LinkEvents {
  event<K extends keyof Events>(name: K, event: Events[K]): void;
  /** There is a connection, or none. */
  linked(there: boolean): void;
  /** The page will be frozen; the socket is closed. */
  slept(): void;
  ended(code: number, reason: string): void;
}

/** How a connection ended. */
interface End {
  code: number;
  reason: string;
  final?: boolean;
  retryAfter?: number;
  cause?: unknown;
}

export class Link {
  state: State = "idle";
  /** The last reason why there is no connection. */
  cause: unknown;
  readonly #backoff: Backoff;
  #socket: SocketLike | undefined;
  #attempt = 0;
  #failures = 0;
  #cancelTimer: (() => void) | undefined;
  #pumping = false;
  /** Of the state: when connecting or waiting is over. */
  #deadline = NEVER;
  /** The server has asked to be left alone until then. */
  #notBefore = 0;
  #hurriedAt = -NEVER;
  #heardAt = 0;
  #readyAt = 0;
  /** When what worked has ended, or the first attempt began. */
  #downAt: number;
  #beatAt = NEVER;
  #renewAt = NEVER;
  /** A sign of life was asked for, and must be there by then. */
  #probe = NEVER;
  #lastTurn = false;

  constructor(
    private readonly url: string,
    private readonly dialogue: Dialogue,
    private readonly keeper: TokenKeeper,
    private readonly bounds: Bounds,
    private readonly env: Env,
    private readonly sink: LinkEvents,
  ) {
    this.#backoff = new Backoff(bounds.backoffBase, bounds.backoffCap, env.random);
    this.#downAt = env.now();
  }

  // Told from outside

  start(): void {
    if (this.state === "idle") void this.#connect();
  }

  /** There may be something to send. */
  wake(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.pump();
    });
  }

  /** The network is back, or the page is seen again: no reason to wait, every reason to look. */
  hurry(): void {
    const now = this.env.now();
    if (this.state === "sleeping") return this.resume();
    if (this.state === "ready" && now - this.#heardAt >= STALE) this.#ask(now);
    if (this.state === "waiting")
      this.#deadline = Math.max(this.#notBefore, Math.min(this.#deadline, this.#hurriedAt + HURRY));
    this.pump();
  }

  /** The network may be gone: look whether the server answers. */
  doubt(): void {
    if (this.state === "ready") this.#ask(this.env.now());
    this.pump();
  }

  /** The page will be frozen: what it has goes out, then the socket is closed. */
  sleep(): void {
    if (this.state === "ended" || this.state === "sleeping") return;
    this.sink.event("leaving", undefined);
    this.pump();
    this.#drop(NORMAL);
    this.#enter("sleeping");
    this.sink.slept();
  }

  resume(): void {
    if (this.state === "sleeping") void this.#connect();
  }

  /** There is another way to the server: take it. */
  reconnect(): void {
    if (/idle|sleeping|ended/.test(this.state)) return;
    this.#drop(NORMAL);
    this.sink.linked(false);
    void this.#connect();
  }

  /** Leave for good. */
  stop(code: number, reason: string): void {
    if (this.state === "ended") return;
    this.#drop(NORMAL);
    this.#enter("ended");
    this.sink.ended(code, reason);
  }

  /** The token must be renewed now. */
  renewToken(): void {
    if (this.keeper.renewable) this.#renewAt = -NEVER;
    this.wake();
  }

  /** Do what is due. */
  pump(): void {
    const now = this.env.now();
    if (this.state === "connecting" && now >= this.#deadline) this.#timedOut();
    else if (this.state === "waiting" && now >= this.#deadline) {
      this.#hurriedAt = now;
      void this.#connect();
    } else if (this.state === "ready") this.#work(now);
    this.#schedule();
  }

  // One connection

  async #connect(): Promise<void> {
    const attempt = ++this.#attempt;
    this.#enter("authorizing");
    if (this.env.local?.()) return this.#open(attempt, "");
    let token: string;
    try {
      token = await this.keeper.current(this.env.now());
    } catch (error) {
      if (attempt !== this.#attempt) return;
      const { message: reason, retryable } = error as NoToken;
      const code = retryable ? 0 : AUTH_FAILED;
      return this.#finish({ code, reason, final: !retryable, cause: error });
    }
    if (attempt === this.#attempt && this.state === "authorizing") this.#open(attempt, token);
  }

  #open(attempt: number, token: string): void {
    this.#enter("connecting", this.env.now() + this.bounds.connectTimeout);
    let socket: SocketLike;
    try {
      socket = this.env.socket(this.url);
    } catch (error) {
      return this.#finish({ code: 0, reason: String(error), final: true, cause: error });
    }
    let opened = false;
    this.#socket = socket;
    socket.onopen = () => {
      opened = true;
      socket.send(this.dialogue.opening(token));
    };
    socket.onmessage = (event: { data: unknown }) => this.#receive(event.data);
    socket.onclose = (event: { code: number; reason: string }) => {
      if (opened) this.#closed(event.code, event.reason);
      else void this.#refused(attempt);
    };
    this.#schedule();
  }

  #receive(data: unknown): void {
    const now = this.env.now();
    this.#heardAt = now;
    this.#probe = NEVER;
    const known = this.dialogue.welcome;
    try {
      this.dialogue.receive(String(data), now);
    } catch (error) {
      return this.#end({ code: ABNORMAL, reason: `not understood: ${error}`, cause: error });
    }
    if (this.dialogue.welcome !== known) this.#welcomed(now);
    else if (this.dialogue.refusal && this.state === "connecting")
      this.#deadline = Math.min(this.#deadline, now + GOODBYE);
    this.wake();
  }

  #welcomed(now: number): void {
    const { tokenLeft, heartbeat } = this.dialogue.welcome!;
    this.#renewAt = now + Math.max(MIN_RENEWAL, tokenLeft - margin(tokenLeft));
    this.keeper.expireAt(this.#renewAt);
    if (!this.keeper.renewable) this.#renewAt = NEVER;
    if (this.state !== "connecting") return;
    this.#enter("ready");
    this.#readyAt = now;
    this.#beatAt = now + heartbeat;
    this.#failures = 0;
    this.sink.linked(true);
  }

  #work(now: number): void {
    const { heartbeat } = this.dialogue.welcome!;
    if (now - this.#heardAt >= SILENCE * heartbeat) this.#ask(now);
    if (now >= this.#probe && !this.#answers(now)) return;
    if (now >= this.#beatAt) this.#beat(now);
    if (now >= this.#renewAt) void this.#renew();
    if (this.dialogue.astray(now)) this.#end({ code: ABNORMAL, reason: "updates out of step" });
    else this.#send(now);
  }

  #beat(now: number): void {
    this.dialogue.tell(T.HEARTBEAT, {});
    this.#beatAt = now + this.dialogue.welcome!.heartbeat;
  }

  /** Ask for a sign of life. */
  #ask(now: number): void {
    if (this.#probe !== NEVER) return;
    this.#probe = now + this.bounds.probeTimeout;
    this.#lastTurn = false;
    this.#beat(now);
  }

  /** No sign of life in time; false when the connection is given up. */
  #answers(now: number): boolean {
    if (this.#lastTurn) {
      this.#end({ code: ABNORMAL, reason: "nothing heard for too long" });
      return false;
    }
    this.#lastTurn = true;
    this.#probe = now + GRACE;
    return true;
  }

  #send(now: number): void {
    const socket = this.#socket!;
    while (socket.bufferedAmount < BUFFER) {
      const message = this.dialogue.outgoing(now);
      if (message === undefined) return;
      socket.send(message);
    }
  }

  async #renew(): Promise<void> {
    const attempt = this.#attempt;
    this.#renewAt = NEVER;
    let again = true;
    try {
      const token = await this.keeper.renewed();
      if (attempt !== this.#attempt) return;
      const answer = this.dialogue.renew(token);
      this.wake();
      return await answer;
    } catch (error) {
      if (attempt !== this.#attempt) return;
      again = !(error instanceof NoToken) || error.retryable;
      this.sink.event("tokenFailed", { message: (error as Error).message });
    }
    if (again) this.#renewAt = this.env.now() + RENEWAL_RETRY;
    this.#schedule();
  }

  // Its end

  #timedOut(): void {
    if (this.dialogue.refusal) return this.#closed(AUTH_FAILED, "");
    this.#end({ code: 0, reason: NO_CONNECTION });
  }

  /** The socket was never open: browsers do not say why, but the server does when asked. */
  async #refused(attempt: number): Promise<void> {
    this.#drop();
    this.#deadline = NEVER;
    let why: Explanation | undefined;
    if (this.#failures % 4 === 0) why = await this.env.explain(this.url).catch(() => undefined);
    if (attempt !== this.#attempt || this.state !== "connecting") return;
    const reason = why ? `${why.code}: ${why.detail}` : NO_CONNECTION;
    const final = !!why && why.status >= 400 && why.status < 500 && !PASSING.has(why.status);
    this.#finish({ code: 0, reason, final, retryAfter: why?.retryAfter ?? 0, cause: why });
  }

  /** A close frame, or the loss of the connection: what it means for the next attempt. */
  #closed(closeCode: number, text: string): void {
    const { refusal, retryAfter } = this.dialogue;
    const code = refusal?.code === "token_expired" ? TOKEN_EXPIRED : closeCode;
    let final = FINAL.has(code) && !refusal?.retryable;
    if (code === TOKEN_EXPIRED || (final && code === AUTH_FAILED && this.keeper.old)) {
      this.keeper.spent();
      final = !this.keeper.renewable;
    }
    const reason = refusal ? `${refusal.code}: ${refusal.message}` : text;
    this.#end({ code, reason, final, retryAfter, cause: refusal });
  }

  #end(end: End): void {
    this.#drop(NORMAL);
    this.#finish(end);
  }

  #finish({ code, reason, final = false, retryAfter = 0, cause }: End): void {
    this.cause = cause ?? reason;
    if (final) return this.stop(code, reason);
    const now = this.env.now();
    if (this.#readyAt && now - this.#readyAt >= this.bounds.stableAfter) {
      this.#backoff.reset();
      this.#downAt = now;
    }
    this.#readyAt = 0;
    this.#failures += 1;
    const retryIn = this.#backoff.next(retryAfter, now - this.#downAt);
    this.#notBefore = now + retryAfter;
    this.#enter("waiting", now + retryIn);
    this.sink.linked(false);
    this.sink.event("disconnected", { code, reason, retryIn });
    this.#schedule();
  }

  /** Let go of the socket. Its own `close` event may take a minute, so it is not waited for. */
  #drop(code?: number): void {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#attempt += code === undefined ? 0 : 1;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // An error after this is nobody's business; Node's would be thrown without a listener.
    socket.onerror = () => {};
    if (code !== undefined) socket.close(code);
    this.dialogue.lost();
  }

  #enter(state: State, deadline = NEVER): void {
    this.state = state;
    this.#deadline = deadline;
    this.#probe = NEVER;
    this.#schedule();
  }

  /** One timer, for whatever is due next. */
  #schedule(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const now = this.env.now();
    const due = Math.max(0, this.#due(now) - now);
    if (due !== NEVER) this.#cancelTimer = this.env.timer(Math.ceil(due), () => this.pump());
  }

  #due(now: number): number {
    if (this.state !== "ready") return this.#deadline;
    const full = (this.#socket?.bufferedAmount ?? 0) >= BUFFER;
    const work = full ? BUFFER_WAIT : this.dialogue.wait(now);
    const silent = this.#heardAt + SILENCE * this.dialogue.welcome!.heartbeat;
    const probe = this.#probe === NEVER ? silent : this.#probe;
    return Math.min(now + work, this.#beatAt, this.#renewAt, probe);
  }
}
