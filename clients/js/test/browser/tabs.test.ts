// Tabs of one device in a real Chromium: one connection, one queue, whatever happens to the leader.
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import type { Browser, BrowserContext, Page, WebSocket } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Options, Session } from "../../src/core/session";
import { connect } from "../../src/node";
import { launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { FaultyProxy } from "../support/proxy";
import { mint, Site, until } from "../support/server";

type State = { n: number; log: number[]; mood: string };
declare global {
  var tab: Session<State>;
  var options: Options;
  var createSession: (options: Options) => Session;
  var problems: string[];
  var made: number;
}

const APP = `<script type="module">
  import { createSession } from "@syncbridge/client";
  import { offline } from "@syncbridge/client/offline";
  const { url, token, user } = await (await fetch("/login")).json();
  globalThis.createSession = createSession;
  globalThis.problems = [];
  globalThis.made = 0;
  globalThis.options = { url, token, deviceId: "tab", store: offline({ user }) };
  globalThis.tab = createSession(options);
  for (const name of ["storage", "refused", "lost", "closed"])
    tab.on(name, (event) => problems.push(name + " " + (event.message ?? event.reason ?? event.error)));
</script>`;

let site: Site;
let server: Server;
let browser: Browser;
let proxy: FaultyProxy;
let context: BrowserContext;
let phone: Session<State>;
let user: string;
let address: string;
const sockets = new Map<Page, WebSocket[]>();

beforeAll(async () => {
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
  const html = { "/": APP, "/other": "<p>elsewhere</p>" };
  server = serve(port, html, { login: () => ({ url: proxy.url, token: mint(user), user }) });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  server?.close();
  await site?.close();
});
beforeEach(async () => {
  user = randomUUID();
  proxy = await FaultyProxy.start(site.port);
  phone = await connect<State>({ url: site.url, token: mint(user), deviceId: "phone" });
  context = await browser.newContext();
  sockets.clear();
});
afterEach(async () => {
  await context?.close();
  await phone?.close().catch(() => {});
  await proxy?.close();
});

async function opened(): Promise<Page> {
  const page = await context.newPage();
  sockets.set(page, []);
  page.on("websocket", (socket) => sockets.get(page)!.push(socket));
  await page.goto(address);
  await online(page);
  return page;
}

/** The tab that leads, and one that follows. */
const two = async () => [await opened(), await opened()] as const;

const online = (page: Page) => page.waitForFunction(() => globalThis.tab?.status === "online");
const settled = (page: Page) =>
  page.waitForFunction(() => tab.status === "online" && !tab.pending.length);
const leads = (page: Page) => sockets.get(page)!.some((socket) => !socket.isClosed());
const problemsOf = (page: Page) => page.evaluate(() => problems);
/** 150 increments, one every 20 ms; the first of them have arrived. */
async function work(page: Page): Promise<void> {
  await page.evaluate(() => {
    setInterval(() => {
      if (made >= 150) return;
      made += 1;
      tab.incr("n");
    }, 20);
  });
  await until(() => (phone.get("n") ?? 0) > 20);
}
/** There is no network until `back`. */
async function cut(...pages: Page[]): Promise<() => void> {
  proxy.fault = "refuse";
  proxy.cut();
  for (const page of pages) await page.waitForFunction(() => tab.status === "offline");
  return () => {
    proxy.fault = "none";
  };
}

it("shares one connection and one queue", async () => {
  const [first, second] = await two();
  expect(proxy.accepted).toBe(1);
  await second.evaluate(() => tab.set("mood", "calm").acknowledged(5_000));
  await first.waitForFunction(() => tab.get("mood") === "calm");
  expect(phone.get("mood")).toBe("calm");
  await phone.set("mood", "wild").acknowledged(5_000);
  await first.waitForFunction(() => tab.get("mood") === "wild");
  await second.waitForFunction(() => tab.get("mood") === "wild" && tab.devices.length === 2);
  const refused = await second.evaluate(() =>
    tab
      .cas("mood", "calm", "x")
      .acknowledged(5_000)
      .catch((error) => error.code),
  );
  expect(refused).toBe("precondition_failed");
  expect(await second.evaluate(() => tab.snapshot().then((state) => state.mood))).toBe("wild");
  expect([leads(first), leads(second)]).toEqual([true, false]);
});

it("keeps what a follower makes without a network", async () => {
  const [first, second] = await two();
  const back = await cut(second);
  const durable = await second.evaluate(() => {
    for (let i = 0; i < 50; i++) tab.incr("n");
    for (let i = 0; i < 50; i++) tab.set("mood", `m${i}`);
    return tab.stored();
  });
  expect(durable).toBe(true);
  await first.waitForFunction(() => tab.get("n") === 50 && tab.get("mood") === "m49");
  await first.close();
  await second.close();
  back();
  const third = await opened();
  await settled(third);
  await until(() => phone.get("n") === 50 && phone.get("mood") === "m49");
  expect(await problemsOf(third)).toEqual([]);
});

it("takes any number of values of one key without a network, in every tab", async () => {
  const [first, second] = await two();
  const back = await cut(first, second);
  const handles = await second.evaluate(() => {
    const made = new Set(Array.from({ length: 3_000 }, (_, i) => tab.set("mood", `m${i}`)));
    return made.size;
  });
  expect(handles).toBe(1);
  await first.waitForFunction(() => tab.get("mood") === "m2999");
  expect(await first.evaluate(() => tab.pending.length)).toBe(1);
  await second.evaluate(() => tab.stored());
  back();
  const version = await second.evaluate(() => tab.set("mood", "last").acknowledged(30_000));
  await until(() => phone.get("mood") === "last");
  expect(phone.version).toBe(version);
  for (const page of [first, second]) {
    await settled(page);
    expect(await problemsOf(page)).toEqual([]);
  }
});

it("uses a store again whose session has ended", async () => {
  const page = await opened();
  const state = await page.evaluate(async () => {
    await tab.set("mood", "calm").acknowledged(5_000);
    await tab.close();
    globalThis.tab = createSession(options) as typeof tab;
    await tab.online(5_000);
    tab.incr("n");
    const safe = await tab.stored();
    return { safe, ...tab.state };
  });
  expect(state).toEqual({ safe: true, mood: "calm", n: 1 });
});

const ENDS: Record<string, (leader: Page) => Promise<unknown>> = {
  "is closed": (leader) => leader.close({ runBeforeUnload: false }),
  crashes: async (leader) => {
    const devtools = await context.newCDPSession(leader);
    devtools.send("Page.crash").catch(() => {});
    await leader.waitForEvent("crash");
  },
  "goes elsewhere": (leader) => leader.goto(`${address}/other`),
};
it.each(Object.keys(ENDS))("goes on when the leader %s", async (how) => {
  const [first, second] = await two();
  await work(second);
  await ENDS[how]!(first);
  await until(() => leads(second));
  await settled(second);
  await second.waitForFunction(() => made >= 150 && !tab.pending.length);
  await until(() => phone.get("n") === 150);
  expect(await problemsOf(second)).toEqual([]);
});

it("replaces a leader that hangs, which then follows", async () => {
  const [first, second] = await two();
  await work(second);
  // Timers of a page that is not seen are slowed down after that: everything is made at once.
  const hung = first.evaluate(() => {
    for (let i = 0; i < 50; i++) tab.incr("n");
    for (const end = Date.now() + 6_000; Date.now() < end; );
    for (let i = 0; i < 50; i++) tab.incr("n");
  });
  await until(() => leads(second), 20_000);
  await hung;
  await until(() => !leads(first));
  for (const page of [first, second])
    await until(() => page.evaluate(() => tab.get("n") === 250 && !tab.pending.length), 30_000);
  await until(() => phone.get("n") === 250);
  for (const page of [first, second]) expect(await problemsOf(page)).toEqual([]);
});

it("leads again, or follows, when it comes back", async () => {
  const [first, second] = await two();
  await first.goto(`${address}/other`);
  await until(() => leads(second));
  await first.goBack({ waitUntil: "commit" });
  await online(first);
  await first.evaluate(() => tab.set("mood", "back").acknowledged(5_000));
  await second.waitForFunction(() => tab.get("mood") === "back");
  await second.close();
  await until(() => leads(first));
  await first.evaluate(() => tab.set("mood", "alone").acknowledged(5_000));
  expect(phone.get("mood")).toBe("alone");
});
