/** The installation that `tests/support.voice.dashboard_stage.py` sets up, and who opens its dashboard. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { opened } from "./support";

const ROOT = resolve(import.meta.dirname, "../..");
const PYTHON = process.env.SYNCBRIDGE_PYTHON ?? join(ROOT, ".venv/bin/python");

interface Told {
  url: string;
  other: string;
  admin: string;
  viewer: string;
  session: string;
  bob: string;
  channel: string;
  endpoint: string;
  audit: string;
}

export class Stage {
  private constructor(
    readonly told: Told,
    readonly process: ChildProcess,
  ) {}

  static async start(): Promise<Stage> {
    const ours = /^(SYNCBRIDGE|REDIS|RTK|JWT|SERVER|WORKER)_/;
    const names = Object.entries(process.env).filter(([name]) => !ours.test(name));
    const python = spawn(PYTHON, ["-m", "support.voice.dashboard_stage"], {
      cwd: ROOT,
      env: { ...Object.fromEntries(names), PYTHONPATH: join(ROOT, "tests") },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let log = "";
    python.stderr.on("data", (data) => {
      log = (log + data).slice(-20_000);
    });
    for await (const line of createInterface(python.stdout)) {
      if (line.startsWith('{"url"')) return new Stage(JSON.parse(line), python);
    }
    throw new Error(log);
  }

  async close(): Promise<void> {
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.stdin?.end();
    await gone;
  }

  /** A request of an admin. */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(this.told.url + path, {
      method,
      headers: {
        authorization: `Bearer ${this.told.admin}`,
        "content-type": "application/json",
      },
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    const text = await answer.text();
    return (text ? JSON.parse(text) : undefined) as T;
  }

  /** The address of a link that opens the dashboard. */
  async link(role = "admin"): Promise<string> {
    const { path } = await this.ask<{ path: string }>("POST", "/admin/links", { role });
    return this.told.url + path;
  }

  /** The dashboard, signed in. */
  async enter(browser: Browser, role = "admin", options: BrowserContextOptions = {}) {
    const entered = await opened(browser, await this.link(role), options);
    await entered.page.getByRole("heading", { name: "Overview" }).waitFor();
    return entered;
  }

  /** The audit events so far. */
  audited(): { action: string; user: string; status: number; [name: string]: unknown }[] {
    const lines = readFileSync(this.told.audit, "utf8").trim().split("\n");
    return lines.map((line) => JSON.parse(line));
  }
}

/** Go to a page, by its name in the navigation. */
export async function visit(page: Page, name: string): Promise<void> {
  await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  await page.getByRole("heading", { level: 1, name }).waitFor();
}

/** Press a button that asks first, and say yes. */
export async function confirmed(
  page: Page,
  button: { click(): Promise<void> },
  yes: string,
): Promise<string> {
  await button.click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: yes }).click();
  await dialog.waitFor({ state: "detached" });
  const said = page.locator(".said.shown");
  await said.waitFor();
  return (await said.textContent()) ?? "";
}
