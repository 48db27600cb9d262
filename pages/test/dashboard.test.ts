/** The dashboard in a real Chromium: what each page shows is true, and what each button does. */
import { execFileSync } from "node:child_process";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { go, openEndpoint, openSession, row, Staged } from "./dashboard";
import { confirmed, visit } from "./stage";
import { opened, until } from "./support";

const MOST_BYTES = 80 * 1024;
const on = new Staged();

describe("signing in", () => {
  it("takes a link once", async () => {
    const link = await on.stage.link();
    const first = await opened(on.browser, link);
    await first.page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(first.page.url()).toBe(`${on.stage.told.url}/admin/#/`);

    const second = await opened(on.browser, link);
    const alert = second.page.getByRole("alert");
    await alert.waitFor();
    expect(await alert.textContent()).toContain("it is unknown, was used, or is older");
    await first.page.context().close();
    await second.page.context().close();
  });

  it("takes a pasted token, refuses a user's and goes on over a reload", async () => {
    const { page } = await opened(on.browser, `${on.stage.told.url}/admin/`);
    const pair = await on.stage.ask<{ access_token: string }>("POST", "/auth/token", {
      user_id: "u",
    });
    const box = page.getByLabel("Or paste a token");
    await box.fill(pair.access_token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    expect(await page.getByRole("alert").textContent()).toContain("role viewer or admin is needed");

    await box.fill(on.stage.told.admin);
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
    const { path } = await on.stage.ask<{ path: string }>("POST", "/admin/links", {
      role: "viewer",
      user_id: "shortlived",
    });
    const { page } = await opened(on.browser, on.stage.told.url + path);
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await on.stage.ask("POST", "/auth/revoke", { user_id: "shortlived" });
    await page.getByRole("alert").waitFor();
    expect(await page.getByRole("alert").textContent()).toContain("revoked");
    await page.context().close();
  });
});

describe("a viewer", () => {
  it("sees every page and has no button that acts", async () => {
    await on.signedIn(async (page) => {
      await openSession(page, on.stage.told.session);
      await row(page, "Keys", "theme").waitFor();
      await go(page, `#/calls/${on.stage.told.channel}`);
      await row(page, "Participants", "bob").waitFor();
      await openEndpoint(page, on.stage.told.endpoint);
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

describe("a person who is asked", () => {
  it("finds who of Ann's devices wrote a key, and whether Bob is in the call, in 8 steps", async () => {
    await on.signedIn(async (page) => {
      let steps = 0;
      const step = async (done: Promise<unknown>) => {
        steps += 1;
        await done;
      };
      const link = (name: string) =>
        page.getByRole("navigation").getByRole("link", { name, exact: true });

      await step(link("Sessions").click());
      await step(page.getByLabel("User, session or device").fill("ann"));
      await step(page.keyboard.press("Enter"));
      await until(async () => (await row(page, "Sessions", "").count()) === 1);
      await step(row(page, "Sessions", "ann").getByRole("link").first().click());
      const key = row(page, "Keys", "volume");
      await key.waitFor();
      expect(await key.locator("td").nth(3).textContent()).toBe("phone");
      expect(await row(page, "Devices", "phone").textContent()).toContain("Ann's phone");

      await step(link("Calls").click());
      await step(page.getByLabel("Which calls is a user in?").fill("bob"));
      await step(page.keyboard.press("Enter"));
      await page.getByText("bob is in a call now: lobby.").waitFor();
      await step(row(page, "Calls of bob", "lobby").getByRole("link").click());
      await page.getByText(/In the call: ann, bob\./).waitFor();
      expect(steps).toBe(8);
    }, "viewer");
  });
});

describe("looks", () => {
  it("that go on leave one audit event, however often the page asks", async () => {
    const { path } = await on.stage.ask<{ path: string }>("POST", "/admin/links", {
      role: "viewer",
      user_id: "watcher",
    });
    const { page } = await opened(on.browser, on.stage.told.url + path);
    const asked = (part: string) =>
      page.waitForResponse((answer) => answer.url().endsWith(part), { timeout: 30_000 });
    const lines = (action: string) =>
      on.stage.audited().filter((line) => line.user === "watcher" && line.action === action);
    for (let polls = 0; polls < 2; polls += 1) await asked("/admin/metrics/all");
    expect(lines("GET /admin/metrics/all").length).toBe(1);

    await go(page, `#/calls/${on.stage.told.channel}`);
    const channel = `/admin/voice/channels/${on.stage.told.channel}`;
    await page.getByLabel("every 5 s").check();
    for (let polls = 0; polls < 2; polls += 1) await asked(channel);
    expect(lines("GET /admin/voice/channels/{channel_id}").length).toBe(1);

    await openSession(page, on.stage.told.session);
    await openSession(page, on.stage.told.bob);
    expect(lines("GET /admin/sessions/{session_id}").map((line) => line.session_id)).toEqual([
      on.stage.told.session,
      on.stage.told.bob,
    ]);
    await page.context().close();
  });
});

describe("the overview", () => {
  it("shows what goes on, live, and charts that can be read as tables", async () => {
    await on.signedIn(async (page) => {
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
    await on.signedIn(
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

describe("access", () => {
  it("is given and taken", async () => {
    await on.signedIn(async (page) => {
      await visit(page, "Access");
      const once = page.locator(".once textarea");
      const link = page.getByRole("region", { name: "Invite to this dashboard" });
      await link.getByLabel("Name in the audit log").fill("eve");
      await link.getByRole("button", { name: "Make a link" }).click();
      await once.waitFor();
      const guest = await opened(on.browser, await once.inputValue());
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
          await fetch(`${on.stage.told.url}/users/frank/status`, {
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
    await on.signedIn(async (page) => {
      await visit(page, "Broadcast");
      const send = page.getByRole("button", { name: "Send" });
      for (const [audience, most] of [
        ["admins", 1],
        ["session", 2],
        ["all", 3],
      ] as const) {
        await page.getByLabel("To").selectOption(audience);
        if (audience === "session")
          await page.getByRole("textbox", { name: "Session" }).fill(on.stage.told.session);
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
    await on.signedIn(async (page) => {
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
    await on.signedIn(async (page) => {
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
    const html = await (await fetch(`${on.stage.told.url}/admin/`)).text();
    const paths = [...html.matchAll(/(?:src|href)="(\.\.\/assets\/[^"]+)"/g)].map(
      ([, path]) => path!,
    );
    expect(paths.length).toBeGreaterThan(2);
    let bytes = gzipSync(html).length;
    for (const path of paths) {
      const answer = await fetch(new URL(path, `${on.stage.told.url}/admin/`));
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
      on.stage.told.url,
      "--role",
      "viewer",
      "--user",
      "gil",
    ];
    const env = { PATH: process.env.PATH ?? "", SYNCBRIDGE_TOKEN: on.stage.told.admin };
    const link = execFileSync(python, args, { env, encoding: "utf8" }).trim();
    expect(link).toMatch(/\/admin\/#code=[\w-]{22}$/);
    const { page } = await opened(on.browser, link);
    await page.getByText("gil (viewer)").waitFor();
    await page.context().close();
  });
});
