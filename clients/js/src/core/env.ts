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
  /** Ask over HTTP why the last handshake failed; nothing when there is no answer. */
  explain(url: string): Promise<Explanation | undefined>;
  random(): number;
  newId(): string;
}

export const PROTOCOL = "syncbridge.json.v1";
const EXPLAIN_TIMEOUT = 5_000;
const MAX_TIMER = 2 ** 31 - 1;

/** The surroundings of a browser, or of Node with a `WebSocket` given. */
export function environment(open: (url: string, protocol: string) => SocketLike): Env {
  return {
    now: clock(Date.now),
    timer(ms, wake) {
      const id = setTimeout(wake, Math.min(ms, MAX_TIMER));
      return () => clearTimeout(id);
    },
    socket: (url) => open(url, PROTOCOL),
    explain,
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

/** A random id; `randomUUID` is there only on secure origins. */
export function newId(): string {
  if (globalThis.isSecureContext !== false) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function explain(url: string): Promise<Explanation | undefined> {
  const address = url.replace(/^ws/, "http");
  const init = { signal: AbortSignal.timeout(EXPLAIN_TIMEOUT), cache: "no-store" } as const;
  try {
    return await explained(await fetch(address, init));
  } catch {
    // A page of an origin that is not allowed cannot read the answer, but can tell that there is one.
    const reached = await fetch(address, { ...init, mode: "no-cors" }).catch(() => undefined);
    if (reached?.type !== "opaque") return undefined;
    return { status: 0, code: "origin_refused", detail: HINT, retryAfter: 0 };
  }
}

const HINT = "the server is there, but does not let pages of this origin read its answers";

async function explained(answer: Response): Promise<Explanation | undefined> {
  const problem = await answer.json().catch(() => undefined);
  if (typeof problem?.code !== "string") return undefined;
  return {
    status: answer.status,
    code: problem.code,
    detail: String(problem.detail ?? problem.title ?? ""),
    retryAfter: Number(answer.headers.get("Retry-After") ?? 0) * 1000 || 0,
  };
}
