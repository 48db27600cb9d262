// The examples' pages as they are, in a real Chromium: the slider of ten lines, and the React mixer.
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import { HOME, launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { mint, Site, until } from "../support/server";

const EXAMPLES = join(HOME, "../../examples");
const built = mkdtempSync(join(tmpdir(), "react-example-"));

let site: Site;
let pages: Server;
let browser: Browser;
let context: BrowserContext;
let page: Page;
let phone: Session<{ volume: number }>;
let address: string;
let user: string;
let slider: string;

/** A project of its own that has the package and React installed. */
const project = () =>
  build({
    root: join(EXAMPLES, "react"),
    logLevel: "error",
    configFile: false,
    oxc: { jsx: { runtime: "automatic" } },
    resolve: {
      alias: Object.entries({
        "@syncbridge/client/offline": "dist/offline.js",
        "@syncbridge/client/react": "dist/react.js",
        "@syncbridge/client": "dist/index.js",
        "react-dom": "node_modules/react-dom",
        react: "node_modules/react",
      }).map(([find, path]) => ({ find, replacement: join(HOME, path) })),
    },
    build: { outDir: built, emptyOutDir: true, assetsInlineLimit: 0 },
  });

beforeAll(async () => {
  slider = await readFile(join(EXAMPLES, "slider/index.html"), "utf8");
  await project();
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
  const login = () => ({ url: site.url, token: mint(user), user });
  pages = serve(port, { "/": slider }, { login, built });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  pages?.close();
  await site?.close();
  rmSync(built, { recursive: true, force: true });
});
beforeEach(async () => {
  user = randomUUID();
  phone = await connect({ url: site.url, token: mint(user), deviceId: "phone" });
  context = await browser.newContext();
  page = await context.newPage();
});
afterEach(async () => {
  await context?.close();
  await phone?.close().catch(() => {});
});

const shown = () => page.locator("#slider").inputValue();
const move = (value: number) => page.locator("#slider").fill(String(value));
const present = () => phone.devices.some((d) => d.deviceId !== "phone" && d.status === "online");
const inStep = async () => {
  await phone.set("volume", 41).acknowledged(30_000);
  await until(async () => (await shown()) === "41", 30_000);
};

it("is a synced slider in ten lines, which survives a reload and kill -9 of the server", async () => {
  expect(slider.trimEnd().split("\n").length).toBeLessThanOrEqual(10);
  await page.goto(address);
  await until(present);
  await move(70);
  await until(() => phone.get("volume") === 70);
  await page.reload();
  await until(async () => (await shown()) === "70");

  await site.kill();
  await until(() => phone.status === "offline");
  await move(30);
  await site.startServer();
  await until(() => phone.get("volume") === 30, 40_000);
  await inStep();
});

it("is a mixer in React, which shows who is there and survives a reload", async () => {
  await page.goto(`${address}/built/index.html`);
  await until(present);
  const here = page.locator("#here");
  await until(async () => (await here.textContent()) === "2 here, this one is online");
  await move(70);
  await until(() => phone.get("volume") === 70);
  await phone.set("volume", 20).acknowledged(5_000);
  await until(async () => (await shown()) === "20");
  await page.reload();
  await until(async () => (await shown()) === "20");
  await inStep();
});
