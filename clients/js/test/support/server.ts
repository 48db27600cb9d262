/** A real server on a real Redis, each a process of its own that a test may kill. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectTo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./ports";

export const ROOT = resolve(import.meta.dirname, "../../../..");
const PYTHON = process.env.SYNCBRIDGE_PYTHON ?? join(ROOT, ".venv/bin/python");
const SECRET = "an-access-secret-for-tests-of-32-bytes";
const REFRESH = "a-refresh-secret-for-tests-of-32-bytes";
const START = 90_000;

/** An access token that the servers of this file accept. `ttl`: seconds; below 0: it has ended. */
export function mint(user: string, claims: object = {}, ttl = 900): string {
  const now = Math.floor(Date.now() / 1000);
  const body = {
    sub: user,
    role: "user",
    typ: "access",
    jti: randomUUID(),
    iat: Math.min(now, now + ttl - 900),
    exp: now + ttl,
  };
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ ...body, ...claims })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

export class Site {
  readonly folder = mkdtempSync(join(tmpdir(), "syncbridge-js-"));
  #redis: ChildProcess | undefined;
  #server: ChildProcess | undefined;
  #log = "";

  private constructor(
    readonly port: number,
    private readonly settings: Record<string, string>,
    private readonly first?: Site,
  ) {}

  /** A running server. `settings`: environment variables. */
  static async start(settings: Record<string, string> = {}, port?: number): Promise<Site> {
    const site = new Site(port ?? (await freePort()), settings);
    await site.#startRedis();
    await site.startServer();
    return site;
  }

  /** Another node of the same site, on the same Redis. */
  async beside(): Promise<Site> {
    const node = new Site(await freePort(), this.settings, this.first ?? this);
    await node.startServer();
    return node;
  }

  get #socket(): string {
    return join((this.first ?? this).folder, "redis.sock");
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  async startServer(): Promise<void> {
    const names = Object.entries(process.env).filter(([n]) => !/^(SYNCBRIDGE|REDIS)_/.test(n));
    const env = {
      ...Object.fromEntries(names),
      SERVER_ADDR: `127.0.0.1:${this.port}`,
      REDIS_ADDR: `unix://${this.#socket}`,
      JWT_SECRET: SECRET,
      JWT_REFRESH_SECRET: REFRESH,
      SYNCBRIDGE_DATA_DIR: this.folder,
      SYNCBRIDGE_LOG_FORMAT: "console",
      SYNCBRIDGE_DRAIN: "3s",
      ...this.settings,
    };
    const server = spawn(PYTHON, ["-m", "syncbridge_server", "serve"], { env, cwd: ROOT });
    for (const out of [server.stdout, server.stderr])
      out.on("data", (data) => {
        this.#log += data;
      });
    this.#server = server;
    await until(
      () => answers(this.port),
      START,
      () => this.#log,
    );
  }

  /** SIGKILL: nothing is said to anybody. */
  async kill(): Promise<void> {
    await ended(this.#server, "SIGKILL");
  }

  /** SIGTERM: the server drains, then ends. */
  async stop(): Promise<void> {
    await ended(this.#server, "SIGTERM");
  }

  async close(): Promise<void> {
    await ended(this.#server, "SIGKILL");
    await ended(this.#redis, "SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** HTTP as an administrator. */
  async admin(method: string, path: string, body?: object): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.port}${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${mint("root", { role: "admin" })}`,
        "Content-Type": "application/json",
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
  }

  /** What a restart of Redis will bring back. */
  async save(): Promise<void> {
    const redis = connectTo(this.#socket);
    redis.write("SAVE\r\n");
    const [answer] = await once(redis, "data");
    redis.destroy();
    if (String(answer) !== "+OK\r\n") throw new Error(`Redis does not save: ${answer}`);
  }

  /** SIGKILL to Redis, which comes back as it was when it was saved. */
  async rollBack(): Promise<void> {
    await ended(this.#redis, "SIGKILL");
    await this.#startRedis();
  }

  async #startRedis(): Promise<void> {
    const socket = this.#socket;
    const config = join(this.folder, "redis.conf");
    writeFileSync(
      config,
      `port 0\nunixsocket ${socket}\nsave ""\nappendonly no\ndir ${this.folder}\n`,
    );
    this.#redis = spawn("redis-server", [config], { stdio: "ignore" });
    await until(
      () => answers(socket),
      START,
      () => readFileSync(config, "utf8"),
    );
  }
}

/** The stand-in of the voice provider, and what a server is told of it. */
export async function voiceProvider() {
  const port = await freePort();
  const settings = {
    RTK_API_KEY: "a-key-of-a-test",
    RTK_SECRET_KEY: "a-secret-key-for-tests-of-32-bytes",
    RTK_API_URL: `http://127.0.0.1:${port}`,
    WORKER_URL: "http://127.0.0.1:1",
  };
  const args = ["-m", "syncbridge_server", "rtk-sim", "--bind", `127.0.0.1:${port}`];
  const env = { ...process.env, ...settings };
  const child = spawn(PYTHON, args, { env, cwd: ROOT, stdio: "ignore" });
  await until(() => answers(port), START);
  return { settings, close: () => ended(child, "SIGKILL") };
}

function answers(where: number | string): Promise<boolean> {
  return new Promise((done) => {
    const socket = typeof where === "number" ? connectTo(where, "127.0.0.1") : connectTo(where);
    socket.once("connect", () => socket.destroy() && done(true));
    socket.once("error", () => done(false));
  });
}

export async function ended(
  child: ChildProcess | undefined,
  signal: NodeJS.Signals,
): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill(signal);
  await gone;
}

/** What a promise gives; else, after a time, an error that names it. A page may never answer. */
export async function within<T>(what: string, work: Promise<T>, ms = 20_000): Promise<T> {
  const stop = new AbortController();
  const late = sleep(ms, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`not within ${ms} ms: ${what}`);
  });
  return Promise.race([work, late]).finally(() => {
    late.catch(() => {});
    stop.abort();
  });
}

/** Until something is true. */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  ms = 10_000,
  what: () => string = () => String(isTrue),
): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(20)) if (await isTrue()) return;
  throw new Error(`not within ${ms} ms: ${what()}`);
}
