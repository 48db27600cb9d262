/** A development server, and pages of it in a real Chromium. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import axe from "axe-core";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
import { freePort } from "../../clients/js/test/support/ports";

const ROOT = resolve(import.meta.dirname, "../..");
const PYTHON = process.env.SYNCBRIDGE_PYTHON ?? join(ROOT, ".venv/bin/python");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const START = 90_000;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
];
/** A name of this machine that a browser does not trust as it trusts 127.0.0.1. */
export const PLAIN = "plain.test";
export const PLAIN_NAME = `--host-resolver-rules=MAP ${PLAIN} 127.0.0.1`;
export const MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const FAILED = join(ROOT, "build/failed-pages");
/** Where pictures go: `make images` makes those of the documents. */
export const IMAGES = process.env.SYNCBRIDGE_IMAGES ?? join(ROOT, "build/img");

export function launch(...flags: string[]): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: [...FLAGS, ...flags] });
}

/** `syncbridge dev`, as `make run` starts it. */
export class Development {
  readonly folder = mkdtempSync(join(tmpdir(), "syncbridge-pages-"));
  url = "";
  #log = "";
  #process!: ChildProcess;

  private constructor(
    readonly settings: Record<string, string>,
    readonly port: number,
  ) {}

  /** `settings`: environment variables. */
  static async start(settings: Record<string, string> = {}): Promise<Development> {
    // A port that is known beforehand: the stand-in voice provider is told where its webhooks go.
    const server = new Development(settings, await freePort());
    await server.begin();
    return server;
  }

  /** Start it, once more after `stop`: with the same port and data. */
  async begin(): Promise<void> {
    const ours = /^(SYNCBRIDGE|REDIS|RTK|JWT|SERVER|WORKER)_/;
    const names = Object.entries(process.env).filter(([name]) => !ours.test(name));
    const data = { SYNCBRIDGE_DATA_DIR: this.folder };
    const env = { ...Object.fromEntries(names), ...data, ...this.settings };
    const args = ["-m", "syncbridge_server", "dev", "--addr", `127.0.0.1:${this.port}`];
    this.#log = "";
    this.#process = spawn(PYTHON, args, { cwd: ROOT, env });
    for (const out of [this.#process.stdout!, this.#process.stderr!])
      out.on("data", (data) => {
        this.#log += data;
      });
    const address = () => /listening on (http:\S+?)\.?\s/.exec(this.#log)?.[1];
    await until(
      () => address() !== undefined,
      START,
      () => this.#log,
    );
    this.url = address()!;
  }

  async stop(): Promise<void> {
    const gone = new Promise((done) => this.#process.once("exit", done));
    if (this.#process.exitCode === null && this.#process.kill("SIGTERM")) await gone;
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A request of somebody on this machine, who is an admin here. */
  async ask(method: string, path: string, body?: unknown): Promise<Response> {
    const answer = await fetch(this.url + path, {
      method,
      headers: { "content-type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  }
}

/** A page of a context of its own; what it does wrong fails the test in `complaints`. */
export async function opened(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; complaints: string[]; asked: string[] }> {
  const page = await (await browser.newContext(options)).newPage();
  const complaints: string[] = [];
  const asked: string[] = [];
  page.on("console", (said) => said.type() === "error" && complaints.push(said.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(url);
  return { page, complaints, asked };
}

/** What axe-core finds that is serious, or worse. It is put into the page past the page's policy. */
export async function serious(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const found = await page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run();
    return violations.map(({ id, impact, nodes }) => ({
      id,
      impact,
      at: nodes.map((n) => n.html),
    }));
  });
  const bad = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  return bad.map(({ id, at }) => `${id}: ${at.join(" ")}`);
}

/** A picture of a page whose test has failed, and the text in it. */
export async function evidence(page: Page, name: string): Promise<void> {
  const path = join(FAILED, name.replaceAll(/\W+/g, "-"));
  await mkdir(FAILED, { recursive: true });
  await page.screenshot({ path: `${path}.png`, fullPage: true });
  await writeFile(`${path}.txt`, (await page.locator("body").textContent()) ?? "");
}

/** Until something is true. */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  ms = 15_000,
  what: () => string = () => String(isTrue),
): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(20)) if (await isTrue()) return;
  expect.fail(`not within ${ms} ms: ${what()}`);
}
