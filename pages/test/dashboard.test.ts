/** The dashboard in a real Chromium: what each page shows is true, and what each button does. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { confirmed, Stage, visit } from "./stage";
import { launch, opened, serious, until } from "./support";

const MOST_BYTES = 80 * 1024;
let stage: Stage;
let browser: Browser;

beforeAll(async () => {
  [stage, browser] = await Promise.all([Stage.start(), launch()]);
});

afterAll(async () => {
  await browser?.close();
  await stage?.close();
});

/**
 * Run a check on a page of its own; what the browser complains of fails it.
 *
 * @param expected what it says of requests that are to fail
 */
async function signedIn(
  check: (page: Page) => Promise<void>,
  role = "admin",
  expected = /^$/,
): Promise<void> {
  const { page, complaints, asked } = await stage.enter(browser, role);
  await check(page);
  expect(complaints.filter((text) => !expected.test(text))).toEqual([]);
  const foreign = asked.filter(
    (url) => !url.startsWith(stage.told.url) && !url.startsWith("blob:"),
  );
  expect(foreign).toEqual([]);
  await page.context().close();
}

/** A session of the test's own, with keys. */
async function newSession(state: Record<string, unknown> = { a: 1 }): Promise<string> {
  const session_id = randomUUID();
  const body = { session_id, user_id: "carol", device_id: "maker", state_data: state };
  await stage.ask("POST", "/session/snapshot", body);
  return session_id;
}

async function openSession(page: Page, id: string): Promise<void> {
  await page.evaluate((hash) => {
    location.hash = hash;
  }, `#/sessions/${id}`);
  await page.getByRole("region", { name: "State" }).waitFor();
}

async function openEndpoint(page: Page, id: string): Promise<void> {
  await page.evaluate((hash) => {
    location.hash = hash;
  }, `#/endpoints/${id}`);
  await page.getByRole("region", { name: "How it goes" }).waitFor();
}

interface Peer {
  ends?: string[];
}

/** In a page of the server: a device that joins, and notes how it is closed. */
async function joined(payload: { device_id: string }): Promise<void> {
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

const row = (page: Page, table: string, text: string) =>
  page.getByRole("region", { name: `${table}, table` }).locator("tbody tr", { hasText: text });

describe("signing in", () => {
  it("takes a link once", async () => {
    const link = await stage.link();
    const first = await opened(browser, link);
    await first.page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(first.page.url()).toBe(`${stage.told.url}/admin/#/`);

    const second = await opened(browser, link);
    const alert = second.page.getByRole("alert");
    await alert.waitFor();
    expect(await alert.textContent()).toContain("it is unknown, was used, or is older");
    await first.page.context().close();
    await second.page.context().close();
  });

  it("takes a pasted token, refuses a user's and goes on over a reload", async () => {
    const { page } = await opened(browser, `${stage.told.url}/admin/`);
    const pair = await stage.ask<{ access_token: string }>("POST", "/auth/token", { user_id: "u" });
    const box = page.getByLabel("Or paste a token");
    await box.fill(pair.access_token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    expect(await page.getByRole("alert").textContent()).toContain("role viewer or admin is needed");

    await box.fill(stage.told.admin);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);

    await page.getByRole("button", { name: "Sign out" }).click();
    await box.waitFor();
    await page.reload();
    await box.waitFor();
    await page.context().close();
  });

  it("ends when the tokens are revoked", async () => {
    const { path } = await stage.ask<{ path: string }>("POST", "/admin/links", {
      role: "viewer",
      user_id: "shortlived",
    });
    const { page } = await opened(browser, stage.told.url + path);
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await stage.ask("POST", "/auth/revoke", { user_id: "shortlived" });
    await page.getByRole("alert").waitFor();
    expect(await page.getByRole("alert").textContent()).toContain("revoked");
    await page.context().close();
  });
});

describe("a viewer", () => {
  it("sees every page and has no button that acts", async () => {
    await signedIn(async (page) => {
      await openSession(page, stage.told.session);
      await row(page, "Keys", "theme").waitFor();
      await page.evaluate((hash) => {
        location.hash = hash;
      }, `#/calls/${stage.told.channel}`);
      await row(page, "Participants", "bob").waitFor();
      await openEndpoint(page, stage.told.endpoint);
      await row(page, "Dead letters", "given-up").first().waitFor();
      const acts =
        /Edit|Delete|Add|New|Test|Rotate|Disconnect|Sign out$|Revoke|End|Migrate|Mute|Kick|Replay|Discard|Send|Issue|Make/;
      const names = ["Sessions", "Calls", "Webhooks", "Webhooks out", "Access", "Broadcast"];
      for (const name of [...names, "System"]) {
        const shown = await page.getByRole("main").getByRole("button").allTextContents();
        expect(shown.filter((text) => acts.test(text))).toEqual([]);
        await visit(page, name);
      }
      expect(await page.getByRole("main").getByRole("alert").count()).toBe(0);
    }, "viewer");
  });
});

describe("the overview", () => {
  it("shows what goes on, live, and charts that can be read as tables", async () => {
    await signedIn(async (page) => {
      await page.getByText(/^Live, /).waitFor();
      const status = page.getByRole("main").getByRole("status");
      expect(await status.textContent()).toBe(
        "All is well: 2 nodes answer, and writes are stored.",
      );
      const updates = page.locator(".tile", { hasText: "Updates" }).locator("b");
      await until(async () => /^([5-9]|1\d)(\.\d)?\/s$/.test((await updates.textContent()) ?? ""));
      const tiles = await page.locator(".tile").allTextContents();
      expect(tiles.join("\n")).toMatch(/Redisreadysingle [\d.]+, primary, 0 replicas, memory/);
      expect(tiles.join("\n")).toContain("Calls1");
      expect(await row(page, "Nodes", "ready").count()).toBe(2);
      expect(await row(page, "AUTH messages by result", "ok").count()).toBe(1);

      const chart = page.getByRole("region", { name: "Updates a second" });
      await chart.getByText("Figures").click();
      expect(await chart.locator("tbody tr").count()).toBeGreaterThan(1);
      const button = page.getByRole("button", { name: "Last 12 hours" });
      await button.click();
      await page.getByRole("button", { name: "Last hour" }).click();
      await button.waitFor();
    });
  });

  it("says what is wrong", async () => {
    await signedIn(
      async (page) => {
        await page.context().setOffline(true);
        await page.route("**/admin/**", (route) => route.abort());
        await page.evaluate(() => dispatchEvent(new Event("offline")));
        const status = page.getByRole("main").getByRole("status");
        await until(
          async () => (await status.textContent()) === "The server does not answer.",
          40_000,
        );
        await page.context().setOffline(false);
        await page.unroute("**/admin/**");
        await until(
          async () => (await status.textContent())?.startsWith("All is well") ?? false,
          40_000,
        );
      },
      "admin",
      /net::ERR_/,
    );
  });
});

describe("sessions", () => {
  it("are found by user, session and device", async () => {
    await signedIn(async (page) => {
      await visit(page, "Sessions");
      await row(page, "Sessions", stage.told.bob).waitFor();
      await page.keyboard.press("/");
      for (const [text, session] of [
        ["ann", stage.told.session],
        [stage.told.bob, stage.told.bob],
        ["tablet", stage.told.session],
      ] as const) {
        const box = page.getByLabel("User, session or device");
        await box.fill(text);
        await page.getByRole("button", { name: "Search" }).click();
        await until(async () => (await row(page, "Sessions", "").count()) === 1);
        expect(await row(page, "Sessions", "").textContent()).toContain(session);
        await box.fill("nobody at all");
        await page.keyboard.press("Enter");
        await page.getByText("No such session.").waitFor();
      }
      const made = await newSession();
      await page.getByLabel("User, session or device").fill("carol");
      await page.keyboard.press("Enter");
      await row(page, "Sessions", made).waitFor();
      await page.getByLabel("with a device online").check();
      await page.getByText("No such session.").waitFor();
    });
  });

  it("of many are looked through further", async () => {
    const made = await Promise.all(Array.from({ length: 60 }, () => newSession()));
    await signedIn(async (page) => {
      await visit(page, "Sessions");
      await page.getByLabel("User, session or device").fill("carol");
      await page.keyboard.press("Enter");
      const further = page.getByRole("button", { name: "Look further" });
      await further.click();
      await further.waitFor({ state: "detached" });
      const shown = (await row(page, "Sessions", "").allTextContents()).join();
      expect(made.filter((id) => !shown.includes(id))).toEqual([]);
    });
  });

  it("show each key's version, who wrote it last, and the devices", async () => {
    await signedIn(async (page) => {
      await openSession(page, stage.told.session);
      const key = row(page, "Keys", "document");
      expect(await key.textContent()).toMatch(/title: "Quarterly plan".*1probably phone/);
      const counted = row(page, "Keys", "count");
      expect(await counted.locator("td").nth(3).textContent()).toBe("laptop");
      await page.getByPlaceholder("Key contains").fill("vol");
      expect(await row(page, "Keys", "").count()).toBe(1);
      const tablet = row(page, "Devices", "tablet");
      expect(await tablet.textContent()).toMatch(/offline.*left/);
      expect(await row(page, "Devices", "laptop").textContent()).toMatch(
        /online.*socket on \w{12}/,
      );
    });
  });

  it("answer who wrote a key last while they are watched, live", async () => {
    const session = await newSession({ a: 1, big: 1 });
    await signedIn(async (page) => {
      await openSession(page, session);
      await page.getByRole("button", { name: "Watch live" }).click();
      await page.getByText("Nothing has happened yet.").waitFor();
      for (const [device_id, key] of [
        ["phone", "a"],
        ["watch", "b"],
      ] as const) {
        const { version } = await stage.ask<{ version: number }>("GET", `/session/${session}`);
        const body = {
          session_id: session,
          device_id,
          base_version: version,
          changes: { [key]: 2 },
        };
        await stage.ask("POST", "/session/incremental", body);
      }
      const tail = page.getByRole("list", { name: "Commits" });
      await tail.getByText("b = 2").waitFor();
      expect(await tail.locator("li").allTextContents()).toEqual([
        expect.stringMatching(/watchv3b = 2$/),
        expect.stringMatching(/phonev2a = 2$/),
      ]);
      const writer = (key: string) => row(page, "Keys", key).locator("td").nth(3);
      await until(async () => (await writer("b").textContent()) === "watch");
      expect(await writer("a").first().textContent()).toBe("phone");

      await page.getByRole("button", { name: "Pause" }).click();
      await page.getByRole("button", { name: "Go on" }).click();
      await page.getByRole("button", { name: "Stop watching" }).click();
      await page.getByRole("button", { name: "Watch live" }).waitFor();
    });
    expect(stage.audited()).toContainEqual(
      expect.objectContaining({ action: "GET /admin/sessions/{session_id}", session_id: session }),
    );
  });

  it("are edited with a confirmation, without losing a digit, and not over others", async () => {
    const session = await newSession({ a: 1 });
    const state = async () => {
      const answer = await fetch(`${stage.told.url}/session/${session}`, {
        headers: { authorization: `Bearer ${stage.told.admin}` },
      });
      return /"state_data":(\{.*?\})/.exec(await answer.text())?.[1];
    };
    await signedIn(
      async (page) => {
        await openSession(page, session);
        await page.getByRole("button", { name: "Add a key" }).click();
        const dialog = page.getByRole("dialog");
        await dialog.getByLabel("Key").fill("big");
        await dialog.getByLabel("Value, as JSON").fill("{nothing");
        await dialog.getByText("This is not JSON").waitFor();
        await dialog.getByLabel("Value, as JSON").fill("9007199254740993");
        await dialog.getByRole("button", { name: "Continue" }).click();
        await dialog.getByText("not there").waitFor();
        await dialog.getByRole("button", { name: "Back" }).click();
        await dialog.getByRole("button", { name: "Continue" }).click();
        await dialog.getByRole("button", { name: "Write it" }).click();
        await row(page, "Keys", "big").waitFor();
        expect(await state()).toBe('{"a":1,"big":9007199254740993}');
        expect(await row(page, "Keys", "big").textContent()).toMatch(/9007199254740993.*dashboard/);

        await page.getByRole("button", { name: "Edit a" }).click();
        const body = {
          session_id: session,
          device_id: "phone",
          base_version: 2,
          changes: { a: 5 },
        };
        await stage.ask("POST", "/session/incremental", body);
        await dialog.getByLabel("Value, as JSON").fill("6");
        await dialog.getByRole("button", { name: "Continue" }).click();
        await dialog.getByRole("button", { name: "Write it" }).click();
        await dialog.getByRole("alert").waitFor();
        await dialog.getByRole("button", { name: "Cancel" }).click();
        expect(await state()).toBe('{"a":5,"big":9007199254740993}');

        await page.getByRole("button", { name: "Refresh" }).click();
        await until(async () => (await row(page, "Keys", "phone").count()) === 1);
        const remove = row(page, "Keys", "big").getByRole("button", { name: "Delete" });
        expect(await confirmed(page, remove, "Delete it")).toBe("big is deleted.");
        expect(await state()).toBe('{"a":5}');
      },
      "admin",
      /status of 409/,
    );
    expect(stage.audited()).toContainEqual(
      expect.objectContaining({ action: "state_edited", session_id: session, keys: ["big"] }),
    );
  });

  it("are downloaded as they are", async () => {
    const session = await newSession({ a: 1, list: [1, 2.5] });
    await signedIn(async (page) => {
      await openSession(page, session);
      const waiting = page.waitForEvent("download");
      await page.getByRole("button", { name: "Download" }).click();
      const file = await waiting;
      expect(file.suggestedFilename()).toBe(`${session}.json`);
      const document = JSON.parse(await readFile(await file.path(), "utf8"));
      expect(document).toMatchObject({
        session_id: session,
        user_id: "carol",
        state_data: { a: 1, list: [1, 2.5] },
      });
    });
  });

  it("lose a device by disconnecting, signing out and revoking", async () => {
    const session = randomUUID();
    await stage.ask("POST", "/session/snapshot", {
      session_id: session,
      user_id: "dave",
      state_data: { a: 1 },
    });
    const pair = await stage.ask<{ access_token: string }>("POST", "/auth/token", {
      user_id: "dave",
    });
    const { page: peer } = await opened(browser, `${stage.told.other}/health`);
    const closed = () => peer.evaluate(() => (globalThis as unknown as Peer).ends ?? []);
    for (const device_id of ["one", "two", "three"]) {
      const payload = { token: pair.access_token, device_id, session_id: session };
      await peer.evaluate(joined, payload);
    }
    await signedIn(async (page) => {
      await openSession(page, session);
      const button = (name: string, label: string) =>
        row(page, "Devices", name).getByRole("button", { name: label });
      await confirmed(page, button("one", "Disconnect"), "Close its socket");
      await until(async () => (await closed()).includes("one 1001"));
      await confirmed(page, button("two", "Sign out"), "Sign it out");
      await until(async () => (await closed()).includes("two 4010"));
      await until(async () => (await row(page, "Devices", "two").count()) === 0);
      await confirmed(page, button("three", "Revoke"), "Revoke them");
      await until(async () => (await closed()).includes("three 4005"));
    });
    const actions = stage
      .audited()
      .map(({ action, device_id, value }) => `${action} ${device_id ?? value ?? ""}`);
    expect(actions).toEqual(
      expect.arrayContaining([
        "POST /admin/connections/close ",
        "device_removed two",
        "token_revoked three",
      ]),
    );
  });

  it("end", async () => {
    const session = await newSession();
    await signedIn(async (page) => {
      await openSession(page, session);
      await page.getByRole("button", { name: "End session" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
      await confirmed(page, page.getByRole("button", { name: "End session" }), "End it for good");
      await page.getByRole("heading", { level: 1, name: "Sessions" }).waitFor();
    });
    await expect(stage.ask("GET", `/session/${session}`)).rejects.toThrow("session_not_found");
    expect(stage.audited()).toContainEqual(
      expect.objectContaining({
        action: "DELETE /admin/sessions/{session_id}",
        session_id: session,
      }),
    );
  });
});

describe("calls", () => {
  it("answer whether Bob is still in the call, by whose word", async () => {
    await signedIn(async (page) => {
      await visit(page, "Calls");
      await page.getByLabel("Which calls is a user in?").fill("bob");
      await page.getByRole("button", { name: "Look" }).click();
      await page.getByText("bob is in a call now: lobby.").waitFor();
      await page
        .getByRole("region", { name: "Live calls" })
        .getByRole("button", { name: "Refresh" })
        .click();
      await row(page, "Live calls", "lobby").getByRole("link").click();
      await page.getByText(/In the call: ann, bob\. The call is healthy\./).waitFor();
      expect(await row(page, "Participants", "bob").textContent()).toMatch(
        /connected.*(webhook|list)/,
      );
      await row(page, "Timeline", "joined").first().waitFor();
      await page.getByPlaceholder("Of a user").fill("bob");
      await page.getByRole("button", { name: "Show", exact: true }).click();
      await until(async () => (await row(page, "Timeline", "ann").count()) === 0);
      await page.getByLabel("every 5 s").check();
      await page.getByLabel("every 5 s").uncheck();
      await page.getByRole("button", { name: "Refresh" }).click();
    });
    expect(stage.audited().map(({ action }) => action)).toEqual(
      expect.arrayContaining([
        "GET /admin/users/{user_id}/calls",
        "GET /admin/voice/channels/{channel_id}",
      ]),
    );
  });

  it("are muted, left, moved and ended", async () => {
    await signedIn(
      async (page) => {
        await page.evaluate(() => {
          location.hash = "#/calls/lobby";
        });
        const button = (name: string, label: string) =>
          row(page, "Participants", name).getByRole("button", { name: label });
        await button("ann", "Mute").click();
        const dialog = page.getByRole("dialog");
        await dialog.getByRole("button", { name: "Mute" }).click();
        await dialog.getByText("the voice provider cannot mute users").waitFor();
        await dialog.getByRole("button", { name: "Cancel" }).click();
        expect(await confirmed(page, button("bob", "Kick"), "Send away")).toBe(
          "bob was sent away.",
        );
        await until(async () => (await row(page, "Participants", "bob").count()) === 0);
        const migrate = page.getByRole("button", { name: "Migrate" });
        expect(await confirmed(page, migrate, "Move it")).toContain("told to come over");
        const end = page.getByRole("button", { name: "End call" });
        expect(await confirmed(page, end, "End it for all")).toBe("The call has ended.");
        await page.getByText("There is no call in this channel now.").waitFor();
      },
      "admin",
      /status of 422/,
    );
    expect(stage.audited().map(({ action }) => action)).toEqual(
      expect.arrayContaining(["call_muted", "call_left", "call_migrated", "call_ended"]),
    );
  });
});

describe("webhooks", () => {
  it("that could not be taken in are replayed and discarded", async () => {
    await signedIn(async (page) => {
      await visit(page, "Webhooks");
      await row(page, "Webhooks by outcome", "accepted").waitFor();
      await page
        .getByRole("region", { name: "Incoming" })
        .getByRole("button", { name: "Refresh" })
        .click();
      const letters = page.getByRole("region", { name: "Dead letters", exact: true });
      const entries = () => row(page, "Dead letters", "user id not acceptable");
      await until(async () => (await entries().count()) === 3);
      await letters.getByText("secrets taken out").first().click();
      expect(await letters.locator("pre").first().textContent()).toContain("participant.left");
      await confirmed(page, entries().first().getByRole("button", { name: "Replay" }), "Replay it");
      await until(async () => {
        await letters.getByRole("button", { name: "Refresh" }).click();
        return (await entries().count()) === 3;
      });
      await confirmed(
        page,
        letters.getByRole("button", { name: "Replay all shown" }),
        "Replay them",
      );
      await until(async () => {
        await letters.getByRole("button", { name: "Refresh" }).click();
        return (await entries().count()) === 3;
      });
      for (let left = 3; left > 0; left -= 1) {
        await confirmed(
          page,
          entries().first().getByRole("button", { name: "Discard" }),
          "Discard it",
        );
        await until(async () => (await entries().count()) === left - 1);
      }
      await letters.getByText("There are none").waitFor();
    });
  });
});

describe("endpoints of events", () => {
  type Made = { id: string; url: string; batch_events: number; enabled: boolean };
  const all = async () => {
    const { endpoints } = await stage.ask<{ endpoints: Made[] }>("GET", "/admin/webhooks");
    return endpoints;
  };

  it("are made, changed, tried, given another secret and deleted, by the keyboard", async () => {
    await signedIn(
      async (page) => {
        await visit(page, "Webhooks out");
        await row(page, "Endpoints", "hooks.example.com/ours").waitFor();
        const dialog = page.getByRole("dialog");
        await page.getByRole("button", { name: "New endpoint" }).focus();
        await page.keyboard.press("Enter");
        await dialog.getByLabel("URL").fill("http://10.0.0.1/");
        await page.keyboard.press("Enter");
        await dialog.getByText("is not a public address").waitFor();
        await dialog.getByLabel("URL").fill("https://hooks.example.com/mine");
        await dialog.getByLabel("Kinds").fill("session.*, call.ended");
        await dialog.getByLabel("Events in a message").fill("20");
        await page.keyboard.press("Enter");
        const secret = dialog.getByLabel("Shown once");
        expect(await secret.inputValue()).toMatch(/^whsec_/);
        expect(await serious(page)).toEqual([]);
        await page.keyboard.press("Escape");
        await dialog.waitFor({ state: "detached" });
        const mine = () => row(page, "Endpoints", "hooks.example.com/mine");
        expect(await mine().textContent()).toContain("enabled");

        await mine().getByRole("link").focus();
        await page.keyboard.press("Enter");
        await page.getByText("session.*, call.ended").waitFor();
        await page.getByText("up to 20 events").waitFor();
        await page.getByRole("button", { name: "Edit" }).click();
        expect(await serious(page)).toEqual([]);
        await dialog.getByLabel("enabled").uncheck();
        await dialog.getByRole("button", { name: "Change it" }).click();
        await page.getByText("disabled by an admin").waitFor();
        const [, made] = await all();
        expect(made).toMatchObject({ batch_events: 20, enabled: false });

        await confirmed(page, page.getByRole("button", { name: "Test" }), "Send it");
        await until(async () => {
          await page.getByRole("button", { name: "Refresh" }).click();
          const held = page.locator(".facts div", { hasText: "Held, to be tried again" });
          return (await held.locator("dd").textContent()) === "1";
        });
        await page.getByRole("button", { name: "Rotate secret" }).click();
        await dialog.getByRole("button", { name: "Rotate it" }).click();
        expect(await secret.inputValue()).toMatch(/^whsec_/);
        await dialog.getByRole("button", { name: "I have it" }).click();
        await dialog.waitFor({ state: "detached" });
        await page.getByRole("button", { name: "Delete" }).click();
        await dialog.getByRole("button", { name: "Delete it" }).click();
        await page.getByRole("heading", { level: 1, name: "Webhooks out" }).waitFor();
        await row(page, "Endpoints", "hooks.example.com/ours").waitFor();
        expect((await all()).map(({ url }) => url)).toEqual(["https://hooks.example.com/ours"]);
      },
      "admin",
      /422/,
    );
  });

  it("have dead letters, which are replayed and discarded", async () => {
    await signedIn(async (page) => {
      await openEndpoint(page, stage.told.endpoint);
      const letters = () => row(page, "Dead letters", "given-up");
      await until(async () => (await letters().count()) === 3);
      expect(await letters().first().textContent()).toContain("status 500");
      await confirmed(
        page,
        letters().first().getByRole("button", { name: "Discard" }),
        "Discard it",
      );
      await until(async () => (await letters().count()) === 2);
      await confirmed(page, letters().first().getByRole("button", { name: "Replay" }), "Send it");
      await until(async () => (await letters().count()) === 1);
      const held = page.locator(".facts div", { hasText: "Held, to be tried again" });
      await until(async () => (await held.locator("dd").textContent()) === "1");
      await page.getByRole("button", { name: "Replay a time" }).click();
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel("What the log has").fill("720");
      await dialog.getByRole("button", { name: "Send them" }).click();
      await page.getByText(/events are sent again/).waitFor();
    });
  });
});

describe("access", () => {
  it("is given and taken", async () => {
    await signedIn(async (page) => {
      await visit(page, "Access");
      const once = page.locator(".once textarea");
      const link = page.getByRole("region", { name: "Invite to this dashboard" });
      await link.getByLabel("Name in the audit log").fill("eve");
      await link.getByRole("button", { name: "Make a link" }).click();
      await once.waitFor();
      const guest = await opened(browser, await once.inputValue());
      await guest.page.getByText("eve (viewer)").waitFor();
      await guest.page.context().close();
      await page.context().grantPermissions(["clipboard-write"]);
      await link.getByRole("button", { name: "Copy" }).click();
      await page.getByText("Copied.").waitFor();

      const issue = page.getByRole("region", { name: "Issue a token" });
      await issue.getByLabel("User", { exact: true }).fill("frank");
      await issue.getByRole("button", { name: "Issue" }).click();
      await issue.locator(".once textarea").waitFor();
      const token = await issue.locator(".once textarea").inputValue();
      const status = async () =>
        (
          await fetch(`${stage.told.url}/users/frank/status`, {
            headers: { authorization: `Bearer ${token}` },
          })
        ).status;
      expect(await status()).toBe(200);

      const revoke = page.getByRole("region", { name: "Revoke tokens" });
      await revoke.getByRole("button", { name: "Revoke" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Revoke them" }).click();
      await page.getByText("Name an id first.").waitFor();
      await page.keyboard.press("Escape");
      await revoke.getByRole("textbox", { name: "Id" }).fill("frank");
      await confirmed(page, revoke.getByRole("button", { name: "Revoke" }), "Revoke them");
      await row(page, "Revocations", "frank").waitFor();
      await page.getByRole("button", { name: "Refresh" }).click();
      expect(await status()).toBe(401);
    });
  });
});

describe("a broadcast", () => {
  it("reaches a session, admins and all", async () => {
    await signedIn(async (page) => {
      await visit(page, "Broadcast");
      const send = page.getByRole("button", { name: "Send" });
      for (const [audience, most] of [
        ["admins", 1],
        ["session", 2],
        ["all", 3],
      ] as const) {
        await page.getByLabel("To").selectOption(audience);
        if (audience === "session")
          await page.getByRole("textbox", { name: "Session" }).fill(stage.told.session);
        await page.getByRole("textbox", { name: "Message" }).fill(`hello ${audience}`);
        const said = await confirmed(page, send, "Send it");
        const [, told = "0"] = /^(\d+) devices of 2 nodes were told\.$/.exec(said) ?? [];
        expect(Number(told)).toBeGreaterThanOrEqual(most);
        await page.locator(".said.shown").waitFor({ state: "detached" });
      }
      await visit(page, "Overview");
      await page
        .getByText(/root sent a message to \d+ devices/)
        .first()
        .waitFor();
    });
  });
});

describe("the configuration", () => {
  it("is shown with secrets hidden", async () => {
    await signedIn(async (page) => {
      await visit(page, "System");
      expect(await row(page, "Settings", "JWT_SECRET").first().textContent()).toContain("[hidden]");
      expect(await page.content()).not.toContain("an-access-secret-for-tests");
      await page.getByPlaceholder("Name or meaning").fill("heartbeat");
      await page.getByText("No setting is like that.").waitFor();
      await page.getByLabel("only what is set").uncheck();
      await row(page, "Settings", "SYNCBRIDGE_HEARTBEAT_INTERVAL").waitFor();
    });
  });
});

describe("the whole", () => {
  it("is used by keyboard alone", async () => {
    await signedIn(async (page) => {
      await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
      await visit(page, "System");
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
      await page.keyboard.press("Tab");
      expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("INPUT");
    });
  });

  it("fits into 80 KB", async () => {
    const html = await (await fetch(`${stage.told.url}/admin/`)).text();
    const paths = [...html.matchAll(/(?:src|href)="(\.\.\/assets\/[^"]+)"/g)].map(
      ([, path]) => path!,
    );
    expect(paths.length).toBeGreaterThan(2);
    let bytes = gzipSync(html).length;
    for (const path of paths) {
      const answer = await fetch(new URL(path, `${stage.told.url}/admin/`));
      bytes += gzipSync(Buffer.from(await answer.arrayBuffer())).length;
    }
    expect(bytes).toBeLessThan(MOST_BYTES);
  });

  it("is printed as a link by the command", async () => {
    const python = process.env.SYNCBRIDGE_PYTHON ?? `${import.meta.dirname}/../../.venv/bin/python`;
    const args = [
      "-m",
      "syncbridge_server",
      "admin-link",
      "--url",
      stage.told.url,
      "--role",
      "viewer",
      "--user",
      "gil",
    ];
    const env = { PATH: process.env.PATH ?? "", SYNCBRIDGE_TOKEN: stage.told.admin };
    const link = execFileSync(python, args, { env, encoding: "utf8" }).trim();
    expect(link).toMatch(/\/admin\/#code=[\w-]{22}$/);
    const { page } = await opened(browser, link);
    await page.getByText("gil (viewer)").waitFor();
    await page.context().close();
  });
});
