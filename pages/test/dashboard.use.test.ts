/** The dashboard as people use it: by keys, to and fro, two at once, on a phone, for a long time. */
import { describe, expect, it } from "vitest";
import { go, joined, openEndpoint, openSession, row, Staged } from "./dashboard";
import { confirmed, visit } from "./stage";
import { launch, opened, PLAIN, PLAIN_NAME, until } from "./support";

const on = new Staged();
const focused = () => document.activeElement?.textContent;
const conflicts = /status of 409/;

describe("by keys", () => {
  it("a dialog gives the focus back, and begins without the error of the last time", async () => {
    await on.signedIn(async (page) => {
      await visit(page, "Access");
      const card = page.getByRole("region", { name: "Revoke tokens" });
      await card.getByRole("button", { name: "Revoke" }).focus();
      await page.keyboard.press("Enter");
      const dialog = page.getByRole("dialog");
      await dialog.getByRole("button", { name: "Revoke them" }).press("Enter");
      await dialog.getByText("Name an id first.").waitFor();
      await dialog.getByRole("button", { name: "Cancel" }).press("Enter");
      await dialog.waitFor({ state: "detached" });
      expect(await page.evaluate(focused)).toBe("Revoke");

      await page.keyboard.press("Enter");
      await dialog.waitFor();
      expect(await dialog.getByRole("alert").count()).toBe(0);
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "detached" });
      expect(await page.evaluate(focused)).toBe("Revoke");
    });
  });
});

describe("to and fro", () => {
  it("a search is in the address, and is there again on the way back", async () => {
    await on.signedIn(async (page) => {
      await visit(page, "Sessions");
      const box = page.getByLabel("User, session or device");
      await box.fill("ann");
      await page.keyboard.press("Enter");
      await until(async () => (await row(page, "Sessions", "").count()) === 1);
      await page.getByLabel("with a device online").check();
      await page.waitForURL(/#\/sessions\?q=ann&online=true$/);
      await row(page, "Sessions", "ann").getByRole("link").first().click();
      await page.getByRole("region", { name: "State" }).waitFor();
      await page.goBack();
      await until(async () => (await row(page, "Sessions", "").count()) === 1);
      expect(await box.inputValue()).toBe("ann");
      expect(await page.getByLabel("with a device online").isChecked()).toBe(true);
      await page.goBack();
      await page.waitForURL(/#\/sessions\?q=ann$/);
      await page.goBack();
      await row(page, "Sessions", on.stage.told.bob).waitFor();
      expect(await box.inputValue()).toBe("");
    });
  });

  it("a user leads to their sessions and calls", async () => {
    await on.signedIn(async (page) => {
      await openSession(page, on.stage.told.session);
      await page.getByRole("link", { name: "calls", exact: true }).click();
      await page.getByText("ann is in a call now: lobby.").waitFor();
      const current = page.getByRole("navigation").locator("[aria-current]");
      expect(await current.textContent()).toBe("Calls");
      await row(page, "Calls of ann", "lobby").getByRole("link").click();
      await row(page, "Participants", "bob").getByRole("link", { name: "bob" }).click();
      await row(page, "Sessions", on.stage.told.bob).waitFor();
    });
  });

  it("a link that is not good any more is said to be so where somebody is signed in", async () => {
    await on.signedIn(
      async (page) => {
        await page.goto(`${on.stage.told.url}/admin/#code=${"a".repeat(22)}`);
        await page.locator(".said.bad").getByText("it is unknown, was used").waitFor();
        await visit(page, "System");
        await page.getByRole("button", { name: "Sign out" }).click();
        await page.getByLabel("Or paste a token").waitFor();
        expect(await page.getByRole("alert").count()).toBe(0);
      },
      "admin",
      /status of 401/,
    );
  });
});

describe("two at once", () => {
  const write = async (session_id: string, base_version: number, changes: object) =>
    on.stage.ask("POST", "/session/incremental", {
      session_id,
      device_id: "phone",
      base_version,
      changes,
    });

  it("an edit is not over what has come meanwhile, also where that is shown at once", async () => {
    const session = await on.newSession({ a: 1 });
    await on.signedIn(
      async (page) => {
        await openSession(page, session);
        await page.getByRole("button", { name: "Watch live" }).click();
        await page.getByText("Nothing has happened yet.").waitFor();
        await page.getByRole("button", { name: "Edit a" }).click();
        const dialog = page.getByRole("dialog");
        await dialog.getByLabel("Value, as JSON").fill("6");
        await dialog.getByRole("button", { name: "Continue" }).click();
        await write(session, 1, { a: 5 });
        await until(async () => (await row(page, "Keys", "phone").count()) === 1);
        expect(await dialog.locator("dd").allTextContents()).toEqual(["a", "1", "6"]);
        await dialog.getByRole("button", { name: "Write it" }).click();
        await dialog.getByRole("alert").waitFor();
        await dialog.getByRole("button", { name: "Continue" }).click();
        expect(await dialog.locator("dd").allTextContents()).toEqual(["a", "5", "6"]);
        await dialog.getByRole("button", { name: "Write it" }).click();
        await row(page, "Keys", "dashboard").waitFor();
      },
      "admin",
      conflicts,
    );
  });

  it("who comes and goes is in the list of devices while somebody watches", async () => {
    const session = await on.newSession({ a: 1 });
    const { page: peer } = await opened(on.browser, `${on.stage.told.other}/health`);
    await on.signedIn(async (page) => {
      await openSession(page, session);
      await page.getByRole("button", { name: "Watch live" }).click();
      await row(page, "Devices", "dashboard-").waitFor();
      const token = on.stage.told.admin;
      await peer.evaluate(joined, { token, device_id: "tv", session_id: session });
      await row(page, "Devices", "tv").getByText("online").waitFor();
      await peer.close();
      await row(page, "Devices", "tv").getByText("offline").waitFor();
    });
    await peer.context().close();
  });

  it("a session that somebody has ended is not shown any more", async () => {
    const session = await on.newSession({ a: 1 });
    await on.signedIn(
      async (page) => {
        await openSession(page, session);
        await on.stage.ask("DELETE", `/admin/sessions/${session}`);
        await page.getByRole("button", { name: "Refresh" }).click();
        await page.getByRole("alert").getByText("session").waitFor();
        expect(await page.getByRole("region", { name: "State" }).count()).toBe(0);
      },
      "admin",
      /status of 404/,
    );
  });

  it("an endpoint is not changed over the change of somebody else", async () => {
    const at = `/admin/webhooks/${on.stage.told.endpoint}`;
    await on.signedIn(async (page) => {
      await openEndpoint(page, on.stage.told.endpoint);
      await page.getByRole("button", { name: "Edit" }).click();
      const body = { url: "https://hooks.example.com/ours", kinds: ["session.*"] };
      await on.stage.ask("PUT", at, { ...body, description: "theirs" });
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel("What for").fill("ours");
      for (let attempt = 0; attempt < 2; attempt += 1) {
        await dialog.getByRole("button", { name: "Change it" }).click();
        await dialog.getByText("Somebody has changed it meanwhile.").waitFor();
      }
      await dialog.getByRole("button", { name: "Cancel" }).click();
      await page.getByText("theirs", { exact: true }).waitFor();
      await page.getByRole("button", { name: "Edit" }).click();
      expect(await dialog.getByRole("alert").count()).toBe(0);
      await dialog.getByLabel("What for").fill("ours");
      await dialog.getByRole("button", { name: "Change it" }).click();
      await page.getByText("ours", { exact: true }).waitFor();
    });
  });

  it("dead letters that somebody else has dealt with stop nobody", async () => {
    type Letters = { dead_letters: { entry: string }[] };
    await on.signedIn(
      async (page) => {
        await visit(page, "Webhooks");
        await row(page, "Dead letters", "user id not acceptable").nth(2).waitFor();
        const all = "/admin/voice/dead-letters";
        const { dead_letters } = await on.stage.ask<Letters>("GET", all);
        await on.stage.ask("DELETE", `${all}/${dead_letters[0]!.entry}`);
        const replay = page.getByRole("button", { name: "Replay all shown" });
        expect(await confirmed(page, replay, "Replay them")).toBe("They wait for their effect.");
      },
      "admin",
      /status of 404/,
    );
  });
});

describe("for a long time", () => {
  it("says how long ago something was by now", async () => {
    const session = await on.newSession();
    await on.signedIn(async (page) => {
      await openSession(page, session);
      const changed = page.locator(".facts div", { hasText: "Changed" }).locator("time");
      const seconds = async () => Number.parseInt((await changed.textContent()) ?? "", 10);
      const before = await seconds();
      await until(async () => (await seconds()) > before + 1);
    });
  });

  it("says what the server is by now", async () => {
    await on.signedIn(async (page) => {
      await page.route("**/admin/me", async (route) => {
        const answer = await route.fetch();
        await route.fulfill({ json: { ...(await answer.json()), version: "99.1" } });
      });
      await visit(page, "System");
      await page.locator(".facts").getByText("99.1").waitFor();
    });
  });
});

describe("in odd places", () => {
  it("on a phone the page that is shown is in sight in the navigation", async () => {
    const viewport = { width: 360, height: 740 };
    const { page } = await on.stage.enter(on.browser, "admin", { viewport });
    for (const [hash, name] of [
      ["#/system", "System"],
      ["#/", "Overview"],
    ] as const) {
      await go(page, hash);
      await page.getByRole("heading", { level: 1, name }).waitFor();
      const link = page.getByRole("navigation").getByRole("link", { name });
      await until(async () => {
        const box = (await link.boundingBox())!;
        return box.x >= 0 && box.x + box.width <= viewport.width;
      });
    }
    await page.context().close();
  });

  it("on a page without TLS a token is copied, too", async () => {
    const plain = await launch(PLAIN_NAME);
    try {
      const url = new URL(await on.stage.link());
      url.hostname = PLAIN;
      const { page, complaints } = await opened(plain, url.href);
      await page.getByRole("heading", { name: "Overview" }).waitFor();
      expect(await page.evaluate(() => isSecureContext)).toBe(false);
      await visit(page, "Access");
      const issue = page.getByRole("region", { name: "Issue a token" });
      await issue.getByLabel("User", { exact: true }).fill("frank");
      await issue.getByRole("button", { name: "Issue" }).click();
      await issue.getByRole("button", { name: "Copy" }).click();
      await issue.getByText("Copied.").waitFor();
      const token = await issue.getByLabel("Shown once").inputValue();
      const id = page.getByRole("textbox", { name: "Id" });
      await id.focus();
      await page.keyboard.press("Control+V");
      expect(await id.inputValue()).toBe(token.slice(0, 64));
      expect(complaints).toEqual([]);
    } finally {
      await plain.close();
    }
  });

  it("what is pasted may be the header of the token, and what is none is said to be none", async () => {
    const { page } = await opened(on.browser, `${on.stage.told.url}/admin/`);
    const box = page.getByLabel("Or paste a token");
    await box.fill("“token” …");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").getByText("This is no token").waitFor();
    await box.fill(` Bearer ${on.stage.told.viewer} `);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.context().close();
  });
});
