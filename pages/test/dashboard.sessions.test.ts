/** Sessions in the dashboard: found, shown key by key, watched, edited, ended. */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import type { Inspected } from "../admin/types";
import { joined, openSession, type Peer, row, Staged } from "./dashboard";
import { confirmed, visit } from "./stage";
import { opened, until } from "./support";

const on = new Staged();

describe("sessions", () => {
  it("are found by user, session and device", async () => {
    await on.signedIn(async (page) => {
      await visit(page, "Sessions");
      await row(page, "Sessions", on.stage.told.bob).waitFor();
      await page.keyboard.press("/");
      for (const [text, session] of [
        ["ann", on.stage.told.session],
        [on.stage.told.bob, on.stage.told.bob],
        ["tablet", on.stage.told.session],
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
      const made = await on.newSession();
      await page.getByLabel("User, session or device").fill("carol");
      await page.keyboard.press("Enter");
      await row(page, "Sessions", made).waitFor();
      await page.getByLabel("with a device online").check();
      await page.getByText("No such session.").waitFor();
    });
  });

  it("of many are looked through further", async () => {
    const made = await Promise.all(Array.from({ length: 60 }, () => on.newSession()));
    await on.signedIn(async (page) => {
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
    await on.signedIn(async (page) => {
      await openSession(page, on.stage.told.session);
      const key = row(page, "Keys", "document");
      expect(await key.textContent()).toMatch(/title: "Quarterly plan".*1phone/);
      const counted = row(page, "Keys", "count");
      expect(await counted.locator("td").nth(3).textContent()).toBe("laptop");
      await page.getByPlaceholder("Key contains").fill("vol");
      expect(await row(page, "Keys", "").count()).toBe(1);
      const names = row(page, "Devices", "").locator("td:first-child");
      expect(await names.allTextContents()).toEqual(["laptop", "phone", "tablet"]);
      const tablet = row(page, "Devices", "tablet");
      expect(await tablet.textContent()).toMatch(/offline.*left/);
      expect(await row(page, "Devices", "laptop").textContent()).toMatch(
        /online.*socket on \w{12}/,
      );
    });
  });

  it("of many keys are shown a hundred at a time", async () => {
    const keys = Array.from({ length: 150 }, (_, number) => [`key${number}`, number]);
    const session = await on.newSession(Object.fromEntries(keys));
    await on.signedIn(async (page) => {
      await openSession(page, session);
      await until(async () => (await row(page, "Keys", "key").count()) === 100);
      await page.getByRole("button", { name: "Show 50 more of 150" }).click();
      await until(async () => (await row(page, "Keys", "key").count()) === 150);
    });
  });

  it("name candidates, or nobody, where the writer of a key is not kept", async () => {
    const session = await on.newSession({ known: 1, mixed: 2, unknown: 3 });
    await on.signedIn(async (page) => {
      await page.route(`**/admin/sessions/${session}`, async (route) => {
        const answer = await route.fetch();
        const body = (await answer.json()) as Inspected;
        for (const key of body.keys.slice(1)) key.writer = "";
        body.keys[1]!.candidates = ["phone", "tv"];
        await route.fulfill({ response: answer, json: body });
      });
      await openSession(page, session);
      const writer = (key: string) => row(page, "Keys", key).locator("td").nth(3).textContent();
      expect(await writer("mixed")).toBe("probably phone, tv");
      expect(await writer("unknown")).toBe("not kept");
    });
  });

  it("answer who wrote a key last while they are watched, live", async () => {
    const session = await on.newSession({ a: 1, big: 1 });
    await on.signedIn(async (page) => {
      await openSession(page, session);
      await page.getByRole("button", { name: "Watch live" }).click();
      await page.getByText("Nothing has happened yet.").waitFor();
      for (const [device_id, key] of [
        ["phone", "a"],
        ["watch", "b"],
      ] as const) {
        const { version } = await on.stage.ask<{ version: number }>("GET", `/session/${session}`);
        const body = {
          session_id: session,
          device_id,
          base_version: version,
          changes: { [key]: 2 },
        };
        await on.stage.ask("POST", "/session/incremental", body);
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
    expect(on.stage.audited()).toContainEqual(
      expect.objectContaining({ action: "GET /admin/sessions/{session_id}", session_id: session }),
    );
  });

  it("are edited with a confirmation, without losing a digit, and not over others", async () => {
    const session = await on.newSession({ a: 1 });
    const state = async () => {
      const answer = await fetch(`${on.stage.told.url}/session/${session}`, {
        headers: { authorization: `Bearer ${on.stage.told.admin}` },
      });
      return /"state_data":(\{.*?\})/.exec(await answer.text())?.[1];
    };
    await on.signedIn(
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
        await on.stage.ask("POST", "/session/incremental", body);
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
    expect(on.stage.audited()).toContainEqual(
      expect.objectContaining({ action: "state_edited", session_id: session, keys: ["big"] }),
    );
  });

  it("are downloaded as they are", async () => {
    const session = await on.newSession({ a: 1, list: [1, 2.5] });
    await on.signedIn(async (page) => {
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
    await on.stage.ask("POST", "/session/snapshot", {
      session_id: session,
      user_id: "dave",
      state_data: { a: 1 },
    });
    const pair = await on.stage.ask<{ access_token: string }>("POST", "/auth/token", {
      user_id: "dave",
    });
    const { page: peer } = await opened(on.browser, `${on.stage.told.other}/health`);
    const closed = () => peer.evaluate(() => (globalThis as unknown as Peer).ends ?? []);
    for (const device_id of ["one", "two", "three"]) {
      const payload = { token: pair.access_token, device_id, session_id: session };
      await peer.evaluate(joined, payload);
    }
    await on.signedIn(async (page) => {
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
    const actions = on.stage
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
    const session = await on.newSession();
    await on.signedIn(async (page) => {
      await openSession(page, session);
      await page.getByRole("button", { name: "End session" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
      await confirmed(page, page.getByRole("button", { name: "End session" }), "End it for good");
      await page.getByRole("heading", { level: 1, name: "Sessions" }).waitFor();
    });
    await expect(on.stage.ask("GET", `/session/${session}`)).rejects.toThrow("session_not_found");
    expect(on.stage.audited()).toContainEqual(
      expect.objectContaining({
        action: "DELETE /admin/sessions/{session_id}",
        session_id: session,
      }),
    );
  });
});
