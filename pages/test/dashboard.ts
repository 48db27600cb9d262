/** What tests of the dashboard have in common: an installation, a browser, ways to a page. */
import { randomUUID } from "node:crypto";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect } from "vitest";
import { Stage } from "./stage";
import { launch } from "./support";

/** An installation and a browser, from before the first test of a file until after its last. */
export class Staged {
  stage!: Stage;
  browser!: Browser;

  constructor() {
    beforeAll(async () => {
      [this.stage, this.browser] = await Promise.all([Stage.start(), launch()]);
    });
    afterAll(async () => {
      await this.browser?.close();
      await this.stage?.close();
    });
  }

  /**
   * Run a check on a page of its own; what the browser complains of fails it.
   *
   * @param expected what it says of requests that are to fail
   */
  async signedIn(
    check: (page: Page) => Promise<void>,
    role = "admin",
    expected = /^$/,
  ): Promise<void> {
    const { page, complaints, asked } = await this.stage.enter(this.browser, role);
    await check(page);
    expect(complaints.filter((text) => !expected.test(text))).toEqual([]);
    const foreign = asked.filter(
      (url) => !url.startsWith(this.stage.told.url) && !url.startsWith("blob:"),
    );
    expect(foreign).toEqual([]);
    await page.context().close();
  }

  /** A session of the test's own, with keys. */
  async newSession(state: Record<string, unknown> = { a: 1 }): Promise<string> {
    const session_id = randomUUID();
    const body = { session_id, user_id: "carol", device_id: "maker", state_data: state };
    await this.stage.ask("POST", "/session/snapshot", body);
    return session_id;
  }
}

/** Go to an address within the dashboard. */
export async function go(page: Page, hash: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, hash);
}

export async function openSession(page: Page, id: string): Promise<void> {
  await go(page, `#/sessions/${id}`);
  await page.getByRole("region", { name: "State" }).waitFor();
}

export async function openEndpoint(page: Page, id: string): Promise<void> {
  await go(page, `#/endpoints/${id}`);
  await page.getByRole("region", { name: "How it goes" }).waitFor();
}

/** Rows of a table that contain a text. */
export const row = (page: Page, table: string, text: string) =>
  page.getByRole("region", { name: `${table}, table` }).locator("tbody tr", { hasText: text });

/** A page that keeps sockets. */
export interface Peer {
  ends?: string[];
}

/** In a page of the server: a device that joins, and notes how it is closed. */
export async function joined(payload: {
  device_id: string;
  [name: string]: string;
}): Promise<void> {
  const peer = globalThis as unknown as Peer;
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onclose = ({ code }) => {
    peer.ends = [...(peer.ends ?? []), `${payload.device_id} ${code}`];
  };
  await new Promise((done) => {
    socket.onopen = done;
  });
  const answered = new Promise((done) => {
    socket.onmessage = done;
  });
  socket.send(JSON.stringify({ type: 7, payload }));
  await answered;
}
