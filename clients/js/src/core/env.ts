/** What the client needs of its surroundings. Tests bring their own, with a clock that they move. */

/** As much of a WebSocket as is used. */
export interface SocketLike {
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** Why a handshake is refused, as `GET /ws` tells it. `retryAfter`: milliseconds. */
export interface Explanation {
  status: number;
  code: string;
  detail: string;
  retryAfter: number;
}

export interface Env {
  /** Milliseconds. Never goes back, and goes on while the machine sleeps. */
  now(): number;
  /** @returns a function that ends the wait */
  timer(ms: number, wake: () => void): () => void;
  socket(url: string): SocketLike;
  /** Whether the next socket leads to another tab, which wants no token. */
  local?(): boolean;
  /** Ask over HTTP why the last handshake failed; nothing when there is no answer. */
  explain(url: string): Promise<Explanation | undefined>;
  random(): number;
  newId(): string;
}

export const PROTOCOL = "syncbridge.json.v1";
/** A timer with more ends at once. */
export const MAX_TIMER = 2 ** 31 - 1;

/** The surroundings of a browser, or of Node with a `WebSocket` given. */
export function environment(open: (url: string, protocol: string) => SocketLike): Env {
  return {
    now: clock(Date.now),
    timer(ms, wake) {
      const id = setTimeout(wake, Math.min(ms, MAX_TIMER));
      return () => clearTimeout(id);
    },
    socket: (url) => open(url, PROTOCOL),
    explain: async (url) => (await import("./explain")).explain(url),
    random: Math.random,
    newId,
  };
}

/** The wall clock without its steps back: only it goes on while a machine sleeps. */
export function clock(wall: () => number): () => number {
  let before = wall();
  let now = 0;
  return () => {
    const read = wall();
    now += Math.max(0, read - before);
    before = read;
    return now;
  };
}

/** A random text of 128 bits; `randomUUID` is there only on secure origins. */
export function newId(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
