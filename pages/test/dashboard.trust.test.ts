/** The dashboard where something is hostile, enormous, mistyped, away, or not as usual. */
import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { go, joined, openSession, row, Staged } from "./dashboard";
import { visit } from "./stage";
import { opened, serious, until } from "./support";

const on = new Staged();
const HOSTILE = "<img src=x onerror=\"document.title='broken'\"></td><script>alert(1)</script>";

describe("signing in", () => {
  it("takes a link that is opened where the dashboard is open already", async () => {
    const { page } = await opened(on.browser, `${on.stage.told.url}/admin/`);
    await page.getByLabel("Or paste a token").waitFor();
    await page.goto(await on.stage.link());
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(page.url()).toBe(`${on.stage.told.url}/admin/#/`);
    await page.context().close();
  });

  it("keeps a login that cannot be used now, whatever a proxy answers", async () => {
    const page = await (await on.browser.newContext()).newPage();
    await page.route("**/admin/me", (route) => route.fulfill({ status: 503, json: { x: 1 } }));
    await page.goto(await on.stage.link());
    await page.getByText("The server answered 503.").waitFor();
    await page.unroute("**/admin/me");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.context().close();
  });

  it("keeps a link that has not come through", async () => {
    const page = await (await on.browser.newContext()).newPage();
    await page.route("**/admin/sign-in", (route) => route.abort());
    await page.goto(await on.stage.link());
    await page.getByText("The server does not answer.").waitFor();
    await page.unroute("**/admin/sign-in");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.context().close();
  });

  it("goes on when a token has ended that can be renewed", async () => {
    await on.signedIn(
      async (page) => {
        let asked = 0;
        await page.route("**/admin/configuration", (route) => {
          const problem = { code: "token_expired", detail: "token refused: it has expired" };
          return asked++ ? route.continue() : route.fulfill({ status: 401, json: problem });
        });
        await visit(page, "System");
        await row(page, "Settings", "JWT_SECRET").first().waitFor();
        expect(asked).toBe(2);
      },
      "admin",
      /status of 401/,
    );
  });

  it("goes by the server's clock", async () => {
    const session = await on.newSession();
    const context = await on.browser.newContext();
    await context.addInitScript(() => {
      const real = Date.now;
      Date.now = () => real() + 3_600_000;
    });
    const page = await context.newPage();
    let renewals = 0;
    page.on("request", (request) => {
      if (request.url().endsWith("/auth/refresh")) renewals += 1;
    });
    await page.goto(await on.stage.link());
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await openSession(page, session);
    const facts = await page.locator(".facts div", { hasText: "Changed" }).textContent();
    expect(facts).toMatch(/(\d+ s|1 min) ago/);
    expect(renewals).toBe(0);
    await context.close();
  });
});

describe("what users have written", () => {
  it("is text, however long, hostile or odd, on a small screen too", async () => {
    const long = "k".repeat(256);
    const state = { [HOSTILE]: HOSTILE, [long]: "v".repeat(2_000), مفتاح: { "<b>": "שלום" } };
    const session_id = await on.newSession(state);
    const viewport = { width: 360, height: 800 };
    const { page, complaints } = await on.stage.enter(on.browser, "admin", { viewport });
    const device = { token: on.stage.told.admin, device_id: "<b>tv</b>", device_name: HOSTILE };
    await page.evaluate(joined, { ...device, session_id });
    await openSession(page, session_id);
    await row(page, "Devices", "<b>tv</b>").waitFor();
    await page.getByRole("button", { name: "Watch live" }).click();
    await row(page, "Devices", "dashboard-").waitFor();
    const { version } = await on.stage.ask<{ version: number }>("GET", `/session/${session_id}`);
    const body = { session_id, device_id: "<i>x</i>", base_version: version };
    await on.stage.ask("POST", "/session/incremental", { ...body, changes: { [HOSTILE]: 2 } });
    await page.getByRole("list", { name: "Commits" }).getByText("<i>x</i>").waitFor();
    await row(page, "Keys", HOSTILE).getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByText(`Delete ${HOSTILE}?`).waitFor();
    const found = () =>
      document.querySelectorAll("#page img[src=x], #page script, #page b, #page i");
    expect(await page.evaluate(`(${found})().length`)).toBe(await page.locator(".tile b").count());
    expect(await page.title()).toBe("Session · SyncBridge");
    expect(await serious(page)).toEqual([]);
    expect(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)).toBe(
      false,
    );
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it("is drawn when it is opened, so that an enormous value costs little", async () => {
    const rows = Array.from({ length: 150 }, () => Array.from({ length: 150 }, (_, at) => at));
    const session = await on.newSession({ rows });
    await on.signedIn(async (page) => {
      await openSession(page, session);
      const elements = () => page.locator("main *").count();
      expect(await elements()).toBeLessThan(1_000);
      await row(page, "Keys", "rows").getByText("[ 150 ]").first().click();
      await until(async () => (await row(page, "Keys", "rows").locator("details").count()) === 151);
      expect(await elements()).toBeLessThan(3_000);
    });
  });
});

describe("a search", () => {
  it("finds the sessions of a user whose id is a UUID", async () => {
    const [session_id, user_id] = [randomUUID(), randomUUID()];
    await on.stage.ask("POST", "/session/snapshot", { session_id, user_id, state_data: { a: 1 } });
    await on.signedIn(async (page) => {
      await visit(page, "Sessions");
      await page.getByLabel("User, session or device").fill(user_id);
      await page.keyboard.press("Enter");
      await until(async () => (await row(page, "Sessions", "").count()) === 1);
      expect(await row(page, "Sessions", "").textContent()).toContain(session_id);
    });
  });
});

describe("watching", () => {
  const add = async (session_id: string, base_version: number, changes: object) =>
    on.stage.ask("POST", "/session/incremental", {
      session_id,
      device_id: "phone",
      base_version,
      changes,
    });

  it("begins with what is there now, and two may watch at once", async () => {
    const session = await on.newSession({ a: 1 });
    await on.signedIn(async (one) => {
      await on.signedIn(async (two) => {
        for (const page of [one, two]) await openSession(page, session);
        await add(session, 1, { before: 1 });
        for (const page of [one, two]) {
          await page.getByRole("button", { name: "Watch live" }).click();
          await row(page, "Keys", "before").waitFor();
        }
        await add(session, 2, { after: 1 });
        for (const page of [one, two]) {
          await page.getByRole("list", { name: "Commits" }).getByText("after = 1").waitFor();
          expect(await page.getByText(/Closed \(/).count()).toBe(0);
        }
        await one.reload();
        await openSession(one, session);
        await one.getByRole("button", { name: "Watch live" }).click();
        await until(async () => (await row(one, "Devices", "online").count()) === 2);
        expect(await row(one, "Devices", "dashboard-").count()).toBe(2);
      });
    });
  });

  it("shows a state that has gone back", async () => {
    const session = await on.newSession({ a: 1 });
    await on.signedIn(async (page) => {
      const sockets: { send(text: string): void }[] = [];
      await page.routeWebSocket(/\/ws$/, (socket) => {
        const server = socket.connectToServer();
        socket.onMessage((text) => server.send(text));
        server.onMessage((text) => socket.send(text));
        sockets.push(socket);
      });
      let loads = 0;
      await page.route(`**/admin/sessions/${session}`, (route) => {
        loads += 1;
        return route.continue();
      });
      await openSession(page, session);
      await page.getByRole("button", { name: "Watch live" }).click();
      await until(() => loads === 2);
      sockets.at(-1)!.send(JSON.stringify({ type: 4, payload: { reset: true, version: 1 } }));
      await until(() => loads === 3);
    });
  });

  it("ends with the session, which it does not begin anew", async () => {
    const session = await on.newSession({ a: 1 });
    await on.signedIn(
      async (page) => {
        await openSession(page, session);
        await page.getByRole("button", { name: "Watch live" }).click();
        await row(page, "Devices", "dashboard-").waitFor();
        await on.stage.ask("DELETE", `/admin/sessions/${session}`);
        await page.getByRole("alert").getByText("session").waitFor();
        expect(await page.getByRole("button", { name: "Watch live" }).count()).toBe(0);
      },
      "admin",
      /status of 404/,
    );
    await expect(on.stage.ask("GET", `/admin/sessions/${session}`)).rejects.toThrow("not_found");
  });
});

describe("what goes wrong", () => {
  it("is said, and the rest of the dashboard stays", async () => {
    const session = await on.newSession();
    await on.signedIn(
      async (page) => {
        await go(page, "#/sessions/%E0%A4%A");
        await page.getByRole("alert").waitFor();
        await page.route(`**/admin/sessions/${session}`, (route) => route.fulfill({ json: {} }));
        await go(page, `#/sessions/${session}`);
        await page.getByRole("heading", { name: "This page cannot be shown" }).waitFor();
        await visit(page, "System");
        await row(page, "Settings", "JWT_SECRET").first().waitFor();
        await page.route("**/timeline?*", async (route) => {
          if (route.request().url().includes("cursor=")) await route.fulfill({ status: 502 });
          else await route.fulfill({ json: { entries: [], nextCursor: "more" } });
        });
        await go(page, `#/calls/${on.stage.told.channel}`);
        await page.getByRole("button", { name: "Show older" }).click();
        await page.getByText("The server answered 502.").waitFor();
      },
      "admin",
      /status of (422|400|404|502)/,
    );
  });

  it("of a channel's id that several waddles have: one is chosen", async () => {
    await on.signedIn(
      async (page) => {
        const problem = { code: "ambiguous", detail: "name one", waddles: ["a", "b/c"] };
        await page.route(/channels\/stage$/, (route) =>
          route.fulfill({ status: 409, json: problem }),
        );
        await go(page, "#/calls/stage");
        const link = page.getByRole("link", { name: "b/c" });
        expect(await link.getAttribute("href")).toBe("#/calls/stage/b%2Fc");
      },
      "admin",
      /status of 409/,
    );
  });

  it("without sockets it asks", async () => {
    const page = await (await on.browser.newContext()).newPage();
    await page.routeWebSocket(/\/ws$/, (socket) => socket.close());
    await page.goto(await on.stage.link());
    for (let polls = 0; polls < 2; polls += 1)
      await page.waitForResponse((answer) => answer.url().endsWith("/admin/metrics/all"));
    await page.getByText(/^Every 5 s, /).waitFor();
    await page.context().close();
  });
});
