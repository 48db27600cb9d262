/**
 * What happens in one session, as it happens: a socket of its own that joins as a device of type
 * `support` and writes nothing. The client's session is not used, because it tells what a state is
 * and not who wrote it.
 */
import { currentToken, root } from "./access";
import { parse } from "./format";
import { newDevice } from "./live";

const AUTH = 7;
const AUTH_SUCCESS = 8;
const AUTH_FAILURE = 9;
const SNAPSHOT_RESPONSE = 4;
const JOINED = 10;
const LEFT = 11;
const DEVICE_LIST = 12;
const STATE_UPDATE = 5;
const HEARTBEAT = 1;
const LONGEST_WAIT = 30_000;
const BEAT = 10_000;
/** Close codes after which nobody is to come back: a session that was ended would begin anew. */
const ENDS = new Set([4002, 4003, 4005, 4009, 4010]);

const KEPT = "syncbridge.device";

/** This browser: others may watch the same session, and a session remembers each of them once. */
function device(): string {
  const id = localStorage.getItem(KEPT) ?? newDevice();
  localStorage.setItem(KEPT, id);
  return id;
}

/** A commit: new values as JSON text. */
export interface Commit {
  version: number;
  before: number;
  device: string;
  changes: Record<string, string>;
  deleted: string[];
}

export interface Listener {
  commit(commit: Commit): void;
  presence(device: string, what: string): void;
  status(text: string): void;
  /** From now on commits are told without a hole; what is shown may be older, or of another history. */
  anew(): void;
  /** Nothing more comes. */
  ended(text: string): void;
}

interface Message {
  type: number | string;
  payload?: Record<string, unknown>;
}

/** Follows a session until `stop`. */
export class Tail {
  #socket: WebSocket | undefined;
  #stopped = false;
  #attempts = 0;
  #timer = 0;

  constructor(
    readonly sessionId: string,
    readonly listener: Listener,
  ) {
    void this.#open();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  async #open(): Promise<void> {
    const token = await currentToken().catch(() => undefined);
    if (this.#stopped) return;
    if (token === undefined) return this.#again(0, "no token");
    const socket = new WebSocket(
      `${location.origin.replace(/^http/, "ws")}${root}/ws`,
      "syncbridge.json.v1",
    );
    this.#socket = socket;
    let beat = 0;
    socket.onopen = () => {
      const payload = {
        token,
        device_id: device(),
        device_type: "support",
        device_name: "Dashboard",
        session_id: this.sessionId,
      };
      socket.send(JSON.stringify({ type: AUTH, payload }));
      beat = window.setInterval(() => {
        socket.send(JSON.stringify({ type: HEARTBEAT, payload: {} }));
      }, BEAT);
    };
    socket.onmessage = ({ data }) => this.#take(parse(data) as Message);
    socket.onclose = ({ code, reason }) => {
      clearInterval(beat);
      this.#again(code, reason);
    };
  }

  #again(code: number, reason: string): void {
    if (this.#stopped) return;
    const closed = `Closed (${code}${reason ? ` ${reason}` : ""})`;
    if (ENDS.has(code)) return this.listener.ended(`${closed}.`);
    const wait = Math.min(LONGEST_WAIT, 500 * 2 ** this.#attempts++);
    this.listener.status(`${closed}; next attempt in ${Math.ceil(wait / 1000)} s`);
    this.#timer = window.setTimeout(() => void this.#open(), wait);
  }

  #take({ type, payload = {} }: Message): void {
    if (type === AUTH_SUCCESS) {
      this.#attempts = 0;
      this.listener.status("");
      this.listener.anew();
    } else if (type === SNAPSHOT_RESPONSE) {
      this.listener.anew();
    } else if (type === AUTH_FAILURE) {
      this.listener.status(`Refused: ${payload.message}`);
    } else if (type === STATE_UPDATE) {
      const changes = (payload.changes ?? {}) as Record<string, unknown>;
      this.listener.commit({
        version: Number(payload.version),
        before: Number(payload.prev_version),
        device: String(payload.device_id ?? ""),
        changes: Object.fromEntries(
          Object.entries(changes).map(([k, v]) => [k, JSON.stringify(v)]),
        ),
        deleted: (payload.deleted_keys ?? []) as string[],
      });
    } else if (type === JOINED) {
      this.listener.presence(String(payload.device_id), "joined");
    } else if (type === LEFT) {
      this.listener.presence(String(payload.device_id), `left (${payload.reason})`);
    } else if (type === DEVICE_LIST && payload.delta) {
      type Moved = { device_id: string; reason?: string }[];
      const { joined = [], left = [] } = payload as { joined?: Moved; left?: Moved };
      for (const one of joined) this.listener.presence(one.device_id, "joined");
      for (const one of left) this.listener.presence(one.device_id, `left (${one.reason})`);
    }
  }
}
