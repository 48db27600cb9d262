/**
 * Voice calls as the server tells them: whole (`voice_state`, the welcome), and changes of them.
 *
 * A call is frozen and replaced when something in it changes. A channel that is watched is asked for
 * again on every new connection: the server remembers no watching.
 */
import type { Session } from "../core/session";

/** Somebody in a call. `joinedAt`: Unix milliseconds. `deviceId`: of the own user only. */
export interface Participant {
  readonly userId: string;
  readonly joinedAt: number;
  readonly state: string;
  readonly muted: boolean;
  readonly video: boolean;
  readonly speaking: boolean;
  readonly deviceId: string | undefined;
}

/** The call of a channel of a waddle. `sessionId`: the provider's session. */
export interface Call {
  readonly channelId: string;
  readonly waddleId: string;
  readonly sessionId: string;
  readonly phase: string;
  readonly participants: readonly Participant[];
}

/** As much of a session as calls need, whatever its state is. */
export type VoiceSession = Pick<
  Session,
  "on" | "request" | "tell" | "status" | "userId" | "deviceId"
>;

type Body = Readonly<Record<string, unknown>>;
type Watcher = { count: number; channelId: string; waddleId: string | undefined };
type Told = (channelId: string, type: string, body: Body) => void;

const all = new WeakMap<object, Calls>();

/** The calls that a session hears of; one object for each session. */
export function callsOf(session: VoiceSession): Calls {
  const known = all.get(session) ?? new Calls(session);
  all.set(session, known);
  return known;
}

export class Calls {
  readonly #calls = new Map<string, Call>();
  readonly #watched = new Map<string, Watcher>();
  readonly #listeners = new Set<Told>();

  constructor(private readonly session: VoiceSession) {
    session.on("voice", ({ type, data }) => this.#hear(type, data));
    session.on("connected", ({ calls }) => this.#connected(calls as Body[] | undefined));
  }

  /**
   * The call of a channel that this session hears of; undefined when there is none. Without a waddle,
   * the first one of the id.
   */
  get(channelId: string, waddleId?: string): Call | undefined {
    if (waddleId !== undefined)
      return this.#calls.get(key(channelId, waddleId)) ?? this.#calls.get(key(channelId, ""));
    for (const call of this.#calls.values()) if (call.channelId === channelId) return call;
    return undefined;
  }

  /** Be told of every message about calls, after it was taken; returns what ends it. */
  on(told: Told): () => void {
    this.#listeners.add(told);
    return () => void this.#listeners.delete(told);
  }

  /** Hear of a channel without taking part; returns what ends it. */
  watch(channelId: string, waddleId?: string): () => void {
    const name = key(channelId, waddleId ?? "");
    const watcher = this.#watched.get(name) ?? { count: 0, channelId, waddleId };
    this.#watched.set(name, watcher);
    if (++watcher.count === 1) this.#ask("voice_watch", channelId, waddleId);
    return () => {
      if (--watcher.count > 0 || !this.#watched.delete(name)) return;
      this.#ask("voice_unwatch", channelId, waddleId);
    };
  }

  /** What cannot be asked now is asked on the next connection. */
  #ask(kind: string, channelId: string, waddleId: string | undefined): void {
    if (this.session.status !== "online") return;
    void this.session.request(kind, { channelId, waddleId }).catch(() => {});
  }

  #connected(calls: readonly Body[] | undefined): void {
    if (calls) {
      const gone = [...this.#calls.values()];
      this.#calls.clear();
      for (const body of calls) this.#take(body);
      for (const { channelId, waddleId } of [...gone, ...this.#calls.values()])
        this.#tell(channelId, "voice_state", { waddleId });
    }
    // After the session's own listeners: it is online then.
    queueMicrotask(() => {
      for (const { channelId, waddleId } of this.#watched.values())
        this.#ask("voice_watch", channelId, waddleId);
    });
  }

  #hear(type: string, body: Body): void {
    const channelId = String(body.channelId ?? "");
    const name = key(channelId, waddleOf(body));
    const call = this.#calls.get(name);
    if (type === "voice_state") this.#take(body);
    else if (type === "voice_state_update") this.#put(updated(call, channelId, body));
    else if (type === "speaking_update" && call) this.#put(spoken(call, body));
    else if (type === "session_ended") this.#calls.delete(name);
    else if (type === "session_migration" && call)
      this.#put({ ...call, sessionId: String(body.newSessionId), phase: "migrating" });
    this.#tell(channelId, type, body);
  }

  #tell(channelId: string, type: string, body: Body): void {
    for (const told of [...this.#listeners]) told(channelId, type, body);
  }

  #take(body: Body): void {
    const channelId = String(body.channelId);
    const waddleId = waddleOf(body);
    const people = Array.isArray(body.participants) ? body.participants : [];
    if (body.phase === "ended") return void this.#calls.delete(key(channelId, waddleId));
    this.#put({
      channelId,
      waddleId,
      sessionId: String(body.sessionId ?? ""),
      phase: String(body.phase),
      participants: Object.freeze(people.map(participant)),
    });
  }

  #put(call: Call): void {
    if (call.waddleId) this.#calls.delete(key(call.channelId, "")); // of a server that named none
    this.#calls.set(key(call.channelId, call.waddleId), Object.freeze(call));
  }
}

/** What a call is kept under; no id has a control character. */
function key(channelId: string, waddleId: string): string {
  return `${channelId}\n${waddleId}`;
}

/** The waddle in a message; servers of earlier versions name none. */
function waddleOf({ waddleId = "" }: Body): string {
  return String(waddleId);
}

function participant(body: Body): Participant {
  return Object.freeze({
    userId: String(body.userId),
    joinedAt: Number(body.joinedAt ?? 0),
    state: String(body.state ?? "connected"),
    muted: body.muted === true,
    video: body.video === true,
    speaking: body.speaking === true,
    deviceId: typeof body.deviceId === "string" ? body.deviceId : undefined,
  });
}

function updated(old: Call | undefined, channelId: string, body: Body): Call {
  const waddleId = waddleOf(body);
  const call = old ?? { channelId, waddleId, sessionId: "", phase: "active", participants: [] };
  const userId = String(body.userId);
  const others = call.participants.filter((p) => p.userId !== userId);
  if (body.state === "disconnected") return { ...call, participants: Object.freeze(others) };
  if (body.state === "released") return call;
  const known = call.participants.find((p) => p.userId === userId) ?? participant({ userId });
  const changed = Object.freeze({ ...known, ...change(String(body.state), body.deviceId) });
  const participants = call.participants.includes(known)
    ? call.participants.map((p) => (p === known ? changed : p))
    : [...others, changed];
  return { ...call, participants: Object.freeze(participants) };
}

function change(state: string, deviceId: unknown): Partial<Participant> {
  if (state === "muted") return { muted: true, speaking: false };
  if (state === "unmuted") return { muted: false };
  if (state === "held") return { state: "connected", deviceId: String(deviceId) };
  return state === "moving" ? { state } : {};
}

function spoken(call: Call, body: Body): Call {
  const updates = (Array.isArray(body.updates) ? body.updates : [body]) as Body[];
  const now = new Map(updates.map((u) => [String(u.userId), u.isSpeaking === true]));
  const heard = (p: Participant) => {
    const speaking = now.get(p.userId);
    return speaking === undefined || speaking === p.speaking
      ? p
      : Object.freeze({ ...p, speaking });
  };
  return { ...call, participants: Object.freeze(call.participants.map(heard)) };
}
