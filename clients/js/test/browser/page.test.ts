// The slider's page in a real Chromium: freeze events, back/forward cache, offline.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Server } from "node:http";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import { HOME, launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { mint, Site, until } from "../support/server";

type State = { volume: number; n: number };
declare global {
  var session: Session<State>;
}

const EXAMPLE = join(HOME, "../../examples/slider/index.html");

let site: Site;
let pages: Server;
let browser: Browser;
let context: BrowserContext;
let page: Page;
let user: string;
let phone: Session<State>;
let address: string;

beforeAll(async () => {
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
  // Its session is there for the test to look at.
  const example = (await readFile(EXAMPLE, "utf8")).replace("const session", "globalThis.session");
  const html = { "/": example, "/other": "<p>elsewhere</p>" };
  pages = serve(port, html, { login: () => ({ url: site.url, token: mint(user) }) });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  pages?.close();
  await site?.close();
});

beforeEach(async () => {
  user = randomUUID();
  phone = await connect<State>({ url: site.url, token: mint(user), deviceId: "phone" });
  context = await browser.newContext();
  page = await context.newPage();
  await page.goto(address);
  await online();
});
afterEach(async () => {
  await context?.close();
  await phone?.close().catch(() => {});
});

const online = () => page.waitForFunction(() => globalThis.session?.status === "online");
const shown = () => page.locator("#slider").inputValue();
const present = () => phone.devices.some((d) => d.deviceId !== "phone" && d.status === "online");

it("leaves when it is told that it will be frozen, and is up to date when it is resumed", async () => {
  await until(present);
  await page.evaluate(() => document.dispatchEvent(new Event("freeze")));
  await until(() => !present(), 20_000);
  await phone.set("volume", 11).acknowledged(5_000);
  await page.evaluate(() => document.dispatchEvent(new Event("resume")));
  await online();
  await until(async () => (await shown()) === "11");
});

it("leaves when the user goes elsewhere, and is there again after going back", async () => {
  await until(present);
  await page.evaluate(() => Object.assign(globalThis, { before: true }));
  await page.goto(`${address}/other`);
  await until(() => !present(), 20_000);
  await phone.set("volume", 12).acknowledged(5_000);
  await page.goBack({ waitUntil: "commit" });
  await online();
  expect(await page.evaluate("globalThis.before")).toBe(true);
  await until(async () => (await shown()) === "12");
});

it("sends what was changed while the network was away", async () => {
  await context.setOffline(true);
  await page.evaluate(() => {
    for (let i = 0; i < 10; i++) globalThis.session.incr("n");
  });
  await context.setOffline(false);
  await until(() => phone.get("n") === 10, 20_000);
});
