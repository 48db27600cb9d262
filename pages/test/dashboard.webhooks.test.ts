/** Webhooks in the dashboard: those that come, and the endpoints of those that go. */
import { describe, expect, it } from "vitest";
import { go, openEndpoint, row, Staged } from "./dashboard";
import { confirmed, visit } from "./stage";
import { serious, until } from "./support";

const on = new Staged();

describe("webhooks", () => {
  it("that could not be taken in are replayed and discarded", async () => {
    await on.signedIn(async (page) => {
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

describe("lists in pages", () => {
  const lists = [
    ["#/webhooks", "/admin/voice/dead-letters", "dead_letters", "next_cursor"],
    ["#/calls", "/admin/voice/channels", "channels", "nextCursor"],
    ["endpoint", "/dead-letters", "dead_letters", "next_cursor"],
  ] as const;

  it.each(lists)("are turned to and fro: %s", async (hash, path, rows, next) => {
    await on.signedIn(async (page) => {
      const places: string[] = [];
      await page.route(new RegExp(`${path}\\?`), async (route) => {
        const cursor = new URL(route.request().url()).searchParams.get("cursor") ?? "";
        places.push(cursor);
        await route.fulfill({ json: { [rows]: [], damaged: 0, [next]: cursor ? "" : "second" } });
      });
      await go(page, hash === "endpoint" ? `#/endpoints/${on.stage.told.endpoint}` : hash);
      const button = (name: string) => page.getByRole("button", { name });
      await button("Next page").click();
      await button("Next page").waitFor({ state: "detached" });
      await button("Previous page").click();
      await button("Previous page").waitFor({ state: "detached" });
      await button("Next page").waitFor();
      expect(places).toEqual(["", "second", ""]);
    });
  });
});

describe("endpoints of events", () => {
  type Made = { id: string; url: string; batch_events: number; enabled: boolean };
  const all = async () => {
    const { endpoints } = await on.stage.ask<{ endpoints: Made[] }>("GET", "/admin/webhooks");
    return endpoints;
  };

  it("are made, changed, tried, given another secret and deleted, by the keyboard", async () => {
    await on.signedIn(
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
    await on.signedIn(async (page) => {
      await openEndpoint(page, on.stage.told.endpoint);
      const letters = () => row(page, "Dead letters", "given-up");
      await until(async () => (await letters().count()) === 4);
      expect(await letters().first().textContent()).toContain("status 500");
      await confirmed(
        page,
        letters().first().getByRole("button", { name: "Discard" }),
        "Discard it",
      );
      await until(async () => (await letters().count()) === 3);
      await confirmed(page, letters().first().getByRole("button", { name: "Replay" }), "Send it");
      await until(async () => (await letters().count()) === 2);
      const held = page.locator(".facts div", { hasText: "Held, to be tried again" });
      await until(async () => (await held.locator("dd").textContent()) === "1");
      await confirmed(page, page.getByRole("button", { name: "Replay all shown" }), "Send them");
      await page.getByText("There are none: nothing was given up.").waitFor();
      await until(async () => (await held.locator("dd").textContent()) === "3");
      await page.getByRole("button", { name: "Replay a time" }).click();
      const dialog = page.getByRole("dialog");
      await dialog.getByLabel("What the log has").fill("720");
      await dialog.getByRole("button", { name: "Send them" }).click();
      await page.getByText(/events are sent again/).waitFor();
    });
  });
});
