// Pages in a real Chromium: the example's slider, reload, kill -9, freeze events, back/forward cache, offline.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import { freePort, mint, Site, until } from "../support/server";

type State = { volume: number; n: number };
declare global {
  var session: Session<State>;
}

const HOME = join(import.meta.dirname, "../..");
const EXAMPLE = join(HOME, "../../examples/slider/index.html");
const MAP = '<script type="importmap">{"imports":{"@syncbridge/client":"/dist/index.js"}}</script>';
const FLAGS = "no-sandbox disable-gpu disable-quic no-first-run disable-sync".split(" ");

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
  pages = createServer(async ({ url = "/" }, answer) => {
    if (url === "/login") return answer.end(JSON.stringify({ url: site.url, token: mint(user) }));
    if (url === "/other")
      return answer.setHeader("Content-Type", "text/html").end("<p>elsewhere</p>");
    const script = url.startsWith("/dist/");
    answer.setHeader("Content-Type", script ? "text/javascript" : "text/html");
    answer.end(script ? await readFile(join(HOME, url)) : MAP + (await readFile(EXAMPLE, "utf8")));
  }).listen(port, "127.0.0.1");
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [...FLAGS, "disable-background-networking", "disable-component-update"].map(
      (f) => `--${f}`,
    ),
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
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
const move = (value: number) => page.locator("#slider").fill(String(value));
const present = () => phone.devices.some((d) => d.deviceId !== "phone" && d.status === "online");

it("survives a reload and kill -9 of the server, in ten lines", async () => {
  await move(70);
  await until(() => phone.get("volume") === 70);
  await page.reload();
  await online();
  expect(await shown()).toBe("70");

  await site.kill();
  await page.waitForFunction(() => globalThis.session.status === "offline");
  await move(30);
  await site.startServer();
  await until(() => phone.get("volume") === 30, 40_000);
});

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
  await page.goto(`${address}/other`);
  await until(() => !present(), 20_000);
  await phone.set("volume", 12).acknowledged(5_000);
  await page.goBack({ waitUntil: "commit" });
  await online();
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
