/** How the dashboard looks: pictures for the documents, and what axe-core says, light and dark. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { row } from "./dashboard";
import { Stage } from "./stage";
import { IMAGES, launch, serious, until } from "./support";

let stage: Stage;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(IMAGES, { recursive: true });
  [stage, browser] = await Promise.all([Stage.start(), launch()]);
});

afterAll(async () => {
  await browser?.close();
  await stage?.close();
});

describe("pictures for the documents", () => {
  for (const [colorScheme, width, height] of [
    ["light", 1280, 860],
    ["dark", 1280, 860],
    ["light", 390, 844],
    ["dark", 390, 844],
  ] as const) {
    it(`${colorScheme}, ${width} px`, async () => {
      const viewport = { width, height };
      const { page } = await stage.enter(browser, "admin", { colorScheme, viewport });
      const size = width < 500 ? "narrow" : "wide";
      const points = page.getByRole("region", { name: "Updates a second" });
      await points.getByText("Figures").click();
      await until(async () => (await points.locator("tbody tr").count()) >= 10, 30_000);
      await points.getByText("Figures").click();
      for (const [name, hash] of [
        ["overview", ""],
        ["session", `sessions/${stage.told.session}`],
        ["call", `calls/${stage.told.channel}`],
      ]) {
        await page.evaluate((to) => {
          location.hash = `#/${to}`;
        }, hash);
        await page.getByRole("heading", { level: 1 }).waitFor();
        if (name === "session") {
          await page.getByRole("button", { name: "Watch live" }).click();
          await page.getByRole("list", { name: "Commits" }).locator("li").nth(5).waitFor();
        }
        if (name === "call") {
          await page.getByText("In the call: ann, bob.").waitFor();
          await page.getByRole("button", { name: "Look them up" }).click();
          await row(page, "Recordings", "transcript").waitFor();
        }
        await page.waitForLoadState("networkidle");
        await page.evaluate(() => scrollTo(0, 0));
        const path = join(IMAGES, `dashboard-${name}-${colorScheme}-${size}.png`);
        const fullPage = name === "call" && size === "wide";
        const taken = await page.screenshot({ path, fullPage });
        expect(taken.length).toBeGreaterThan(10_000);
      }
      await page.context().close();
    });
  }
});

describe("axe finds nothing serious", () => {
  for (const [colorScheme, width] of [
    ["light", 1280],
    ["dark", 1280],
    ["light", 360],
    ["dark", 360],
  ] as const) {
    it(`${colorScheme}, ${width} px`, async () => {
      const viewport = { width, height: 800 };
      const { page } = await stage.enter(browser, "admin", { colorScheme, viewport });
      const pages = ["", "sessions", `sessions/${stage.told.session}`, "calls", "calls/lobby"];
      for (const hash of [
        ...pages,
        "webhooks",
        "endpoints",
        `endpoints/${stage.told.endpoint}`,
        "access",
        "broadcast",
        "system",
      ]) {
        await page.evaluate((to) => {
          location.hash = `#/${to}`;
        }, hash);
        await page.getByRole("heading", { level: 1 }).waitFor();
        await page.waitForLoadState("networkidle");
        expect(await serious(page)).toEqual([]);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        expect(wide, `${hash} is as wide as the screen`).toBe(false);
      }
      await page.context().close();
    });
  }
});
