// The stored queue in a real Chromium: reload, kill -9 of the page, lost answers.
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import { killPage, launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { FaultyProxy } from "../support/proxy";
import { mint, Site, until, within } from "../support/server";

type State = { n: number; log: number[]; mood: string };
declare global {
  var tab: Session<State>;
  var problems: string[];
  var told: (last: number) => void;
}

const APP = `<script type="module">
  import { createSession } from "@syncbridge/client";
  import { offline } from "@syncbridge/client/offline";
  const { url, token, user } = await (await fetch("/login")).json();
  globalThis.problems = [];
  globalThis.tab = createSession({ url, token, deviceId: "tab", store: offline({ user }) });
  for (const name of ["storage", "refused", "lost", "closed"])
    tab.on(name, (event) => problems.push(name + " " + (event.message ?? event.reason)));
</script>`;

let site: Site;
let server: Server;
let browser: Browser;
let proxy: FaultyProxy;
let context: BrowserContext;
let page: Page;
let phone: Session<State>;
let user: string;
let address: string;

beforeAll(async () => {
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
  server = serve(
    port,
    { "/": APP },
    { login: () => ({ url: proxy.url, token: mint(user), user }) },
  );
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
  page = await opened();
  await page.waitForFunction(() => tab.status === "online");
});
afterEach(async () => {
  if (context) await within("the profile closes", context.close());
  await phone?.close().catch(() => {});
  if (proxy) await within("the proxy closes", proxy.close());
});

/** A new page of the same browser profile. */
async function opened(): Promise<Page> {
  const made = await within("a new page", context.newPage());
  await made.goto(address);
  await made.waitForFunction(() => globalThis.tab);
  return made;
}

const settled = () => page.waitForFunction(() => tab.status === "online" && !tab.pending.length);

it("sends after a reload what was made without a network", async () => {
  proxy.fault = "refuse";
  proxy.cut();
  await page.waitForFunction(() => tab.status === "offline");
  const storing = page.evaluate(() => {
    for (let i = 0; i < 20; i++) tab.incr("n");
    tab.set("mood", "calm");
    return tab.stored();
  });
  expect(await within("all is stored", storing)).toBe(true);
  await page.reload();
  await page.waitForFunction(() => tab.get("n") === 20 && tab.pending.length === 21);
  proxy.fault = "none";
  await page.evaluate(() => void tab.incr("n"));
  await settled();
  await until(() => phone.get("n") === 21 && phone.get("mood") === "calm");
  expect(await page.evaluate(() => problems)).toEqual([]);
});

const ROUNDS = Number(process.env.ROUNDS ?? 3);
it(`loses and doubles nothing when the page is killed, ${ROUNDS} times`, {
  timeout: 60_000 + ROUNDS * 20_000,
}, async () => {
  let safe = -1;
  await context.exposeFunction("told", (last: number) => {
    safe = last;
  });
  for (let round = 0; round < ROUNDS; round++) {
    // The worst moment: some are on disk, some are sent, and of some the answers are lost.
    proxy.delay = round * 20;
    const before = safe;
    const making = page.evaluate(async (from) => {
      await tab.online(15_000);
      const make = (i: number) => {
        tab.append("log", i);
        void tab.stored().then(() => told(i));
        if (i < from + 200) setTimeout(() => make(i + 1), 20);
      };
      make(from);
    }, phone.get("log")?.length ?? 0);
    await within(`round ${round}: the page is online`, making);
    const stored = (count: number) => () => `round ${round}: ${count} updates are stored: ${safe}`;
    await until(() => safe > before + 10, 20_000, stored(10));
    if (round % 2) proxy.fault = "deaf";
    await until(() => safe > before + 20, 20_000, stored(20));
    await killPage(browser, page);
    proxy.cut();
    proxy.fault = "none";
    const promised = safe;
    await within(`round ${round}: the killed page closes`, page.close());
    page = await opened();
    await settled();
    const log = await within(
      "the page's state",
      page.evaluate(() => tab.get("log")!),
    );
    expect(log).toEqual(log.map((_, i) => i));
    expect(log.length).toBeGreaterThan(promised);
    const seen = () => `round ${round}: the phone has ${phone.get("log")?.length}, ${log.length}`;
    await until(() => phone.get("log")!.length === log.length, 20_000, seen);
    safe = log.length - 1;
  }
  expect(await page.evaluate(() => problems)).toEqual([]);
});
