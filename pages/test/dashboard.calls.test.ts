/** Calls in the dashboard: who is in one, by whose word, and what can be done. */
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import type { TimelineEntry } from "../admin/types";
import { go, row, Staged } from "./dashboard";
import { confirmed, visit } from "./stage";
import { until } from "./support";

const on = new Staged();

describe("calls", () => {
  it("answer whether Bob is still in the call, by whose word", async () => {
    await on.signedIn(async (page) => {
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
    expect(on.stage.audited().map(({ action }) => action)).toEqual(
      expect.arrayContaining([
        "GET /admin/users/{user_id}/calls",
        "GET /admin/voice/channels/{channel_id}",
      ]),
    );
  });

  it("have a timeline that is read backwards", async () => {
    await on.signedIn(async (page) => {
      await page.route(/\/timeline\?/, async (route) => {
        const url = new URL(route.request().url());
        const older = url.searchParams.get("cursor") === "earlier";
        url.searchParams.delete("cursor");
        const answer = await route.fetch({ url: url.href });
        const body = (await answer.json()) as { entries: TimelineEntry[]; nextCursor: string };
        const entries = [{ ...body.entries[0]!, what: older ? "older" : "newer" }];
        await route.fulfill({ json: { entries, nextCursor: older ? "" : "earlier" } });
      });
      await go(page, `#/calls/${on.stage.told.channel}`);
      await row(page, "Timeline", "newer").waitFor();
      await page.getByRole("button", { name: "Show older" }).click();
      await row(page, "Timeline", "older").waitFor();
      expect(await row(page, "Timeline", "newer").count()).toBe(1);
      expect(await page.getByRole("button", { name: "Show older" }).count()).toBe(0);
    });
  });

  it("list what was recorded, on demand", async () => {
    const channel = `#/calls/${on.stage.told.channel}`;
    await on.signedIn(async (page) => {
      await go(page, channel);
      const card = page.getByRole("region", { name: "Recordings", exact: true });
      await card.getByRole("button", { name: "Look them up" }).click();
      await row(page, "Recordings", "transcript").waitFor();
      const recording = row(page, "Recordings", "recording");
      const open = recording.getByRole("link", { name: "Open" });
      expect(await open.getAttribute("href")).toBe("https://records.example.com/1.mp4");
      expect(await open.getAttribute("rel")).toBe("noreferrer");
      expect(await recording.textContent()).toContain("2 min");
      const waiting = page.waitForEvent("download");
      await row(page, "Recordings", "transcript").getByRole("button").click();
      const file = await waiting;
      expect(await readFile(await file.path(), "utf8")).toBe("ann: hello");
    });
    expect(on.stage.audited().map(({ action }) => action)).toEqual(
      expect.arrayContaining(["recordings_read", "recording_read"]),
    );
    await on.signedIn(async (page) => {
      await go(page, channel);
      await page.getByText("Recordings are shown to role admin.").waitFor();
    }, "viewer");
  });

  it("are muted, left, moved and ended", async () => {
    await on.signedIn(
      async (page) => {
        await go(page, "#/calls/lobby");
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
    expect(on.stage.audited().map(({ action }) => action)).toEqual(
      expect.arrayContaining(["call_muted", "call_left", "call_migrated", "call_ended"]),
    );
  });
});
