// How the pages look: pictures for the documents, and what axe-core says, light and dark, wide and narrow.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Development, IMAGES, launch, MICROPHONE, opened, serious } from "./support";

const SIZES = { wide: { width: 1440, height: 1000 }, narrow: { width: 360, height: 800 } };
const WAYS = (["light", "dark"] as const).flatMap((scheme) =>
  (["wide", "narrow"] as const).map((size) => [scheme, size] as const),
);

let server: Development;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(IMAGES, { recursive: true });
  server = await Development.start();
  browser = await launch(...MICROPHONE);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

/** Everything on it has something to show: two devices, one of which comes back. */
async function played(page: Page): Promise<void> {
  const device = (name: string) => page.getByRole("region", { name, exact: true });
  const [phone, laptop] = [device("Phone"), device("Laptop")];
  const press = (where: ReturnType<typeof device> | Page, name: string) =>
    where.getByRole("button", { name, exact: true }).click();
  for (const text of ["Book the room", "Bring the slides"]) {
    await laptop.getByRole("textbox", { name: "List" }).fill(text);
    await press(laptop, "Add");
  }
  await phone.getByRole("checkbox", { name: "Book the room" }).check();
  for (let n = 0; n < 3; n++) await press(phone, "More");
  await press(phone, "Join");
  await press(page, "Invite to the voice room");
  await press(page, "Speak");
  await phone.getByRole("switch").click();
  await phone.getByRole("textbox", { name: "Text" }).fill("written on the train");
  await laptop.getByRole("textbox", { name: "Text" }).fill("written at the desk");
  await laptop.getByRole("slider").fill("70");
  await phone.getByRole("switch").click();
  await phone.locator(".merge").first().waitFor();
  await laptop.getByText("You on Phone").waitFor();
  await laptop.getByRole("application").press("ArrowLeft");
  await phone.locator(".pointer").waitFor();
}

it.each(WAYS)("shows the demo: %s, %s", async (colorScheme, size) => {
  const options = { colorScheme, viewport: SIZES[size], reducedMotion: "reduce" } as const;
  const { page, complaints } = await opened(browser, server.url, options);
  await page.getByText("online").nth(1).waitFor();
  await played(page);
  await page.screenshot({
    path: join(IMAGES, `demo-${colorScheme}-${size}.png`),
    fullPage: true,
  });

  expect(await serious(page)).toEqual([]);
  const overflow = () => document.documentElement.scrollWidth - window.innerWidth;
  expect(await page.evaluate(overflow)).toBeLessThanOrEqual(0);
  expect(complaints).toEqual([]);
  await page.context().close();
});
