/**
 * The figures of the installation as they change: by ADMIN_UPDATE for an admin, by asking for a
 * viewer and where there is no socket, as at the address of administration.
 */
import { createSession, type Session } from "@syncbridge/client";
import { ask, currentToken, root } from "./access";
import { earlier, History, sampleOf } from "./figures";
import type { Me, Metrics, VoiceFigures } from "./types";

const EVERY = 5_000;
/** Turns between two looks at the calls, which cost the server a read of each. */
const VOICE_EVERY = 12;
const NOTICES = 100;

/** The session in which all dashboards are: ADMIN_UPDATE comes to any, and one is enough. */
export const DASHBOARDS = "da5b0a2d-0000-4000-8000-000000000000";

/** An id of a dashboard as a device, as good as never given twice. */
export function newDevice(): string {
  return `dashboard-${crypto.getRandomValues(new Uint32Array(1))[0]!.toString(16)}`;
}

/** Something that an operator should know, told by a node. */
export interface News {
  at: number;
  name: string;
  text: string;
}

type Way = "socket" | "polling" | "lost";

/** What the pages show, and who wants to know when it changes. */
export class Feed {
  readonly history = new History();
  readonly news: News[] = [];
  metrics: Metrics | undefined;
  before: Metrics | undefined;
  voice: VoiceFigures | undefined;
  way: Way = "polling";
  readonly #listeners = new Set<() => void>();
  #session: Session | undefined;
  #timer = 0;
  #turns = 0;
  #heard = 0;

  constructor(readonly me: Me) {}

  start(): void {
    if (this.me.role === "admin") this.#connect();
    void this.#turn();
    this.#timer = window.setInterval(() => void this.#turn(), EVERY);
  }

  stop(): void {
    clearInterval(this.#timer);
    void this.#session?.close().catch(() => {});
  }

  /** @returns a function that ends the listening */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #connect(): void {
    this.#session = createSession({
      url: location.origin.replace(/^http/, "ws") + root,
      token: currentToken,
      deviceId: newDevice(),
      deviceType: "dashboard",
      deviceName: "Dashboard",
      sessionId: DASHBOARDS,
    });
    this.#session.on("message", ({ payload }) => {
      if (payload.kind === "metrics") {
        this.#heard = Date.now();
        this.#take(payload.metrics as unknown as Metrics, "socket");
      } else if (payload.kind === "notice") {
        this.news.unshift({ at: Date.now(), name: `${payload.notice}`, text: `${payload.text}` });
        this.news.length = Math.min(this.news.length, NOTICES);
        this.#tell();
      }
    });
  }

  async #turn(): Promise<void> {
    if (this.me.voice && this.#turns++ % VOICE_EVERY === 0) void this.#askVoice();
    if (Date.now() - this.#heard < 3 * EVERY) return;
    try {
      this.#take(await ask<Metrics>("GET", "/admin/metrics/all"), "polling");
    } catch {
      this.way = "lost";
      this.#tell();
    }
  }

  async #askVoice(): Promise<void> {
    this.voice = await ask<VoiceFigures>("GET", "/admin/metrics/voice").catch(() => this.voice);
    this.#tell();
  }

  #take(metrics: Metrics, way: Way): void {
    this.before = earlier(this.metrics, metrics);
    this.history.add(sampleOf(this.before, metrics));
    this.metrics = metrics;
    this.way = way;
    this.#tell();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
