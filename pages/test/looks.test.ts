// How the pages look: pictures for the documents, and what axe-core says, light and dark, wide and narrow.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Locator, Page } from "playwright-core";
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

/** Pictures of a story, for `scripts/moving_picture.py`; each name ends in how long it is shown. */
const FRAMES = join(IMAGES, "../../build/moving");
const STAGE = { x: 10, y: 90, width: 930, height: 620 };

it.runIf(process.env.SYNCBRIDGE_IMAGES)(
  "shows a device that is cut off and comes back",
  async () => {
    rmSync(FRAMES, { recursive: true, force: true });
    mkdirSync(FRAMES, { recursive: true });
    const options = { viewport: { width: 1440, height: 1000 }, reducedMotion: "reduce" } as const;
    const { page } = await opened(browser, server.url, options);
    await page.getByText("online").nth(1).waitFor();
    const [phone, laptop] = ["Phone", "Laptop"].map((name) =>
      page.getByRole("region", { name, exact: true }),
    ) as [Locator, Locator];
    let taken = 0;
    const frame = async (ms: number) => {
      const name = `${String(taken++).padStart(2, "0")}-${ms}.png`;
      await page.screenshot({ path: join(FRAMES, name), clip: STAGE });
    };
    const slid = async (from: Locator, value: number, to?: Locator) => {
      await from.getByRole("slider").fill(String(value));
      if (to) await expect.poll(() => to.getByRole("slider").inputValue()).toBe(String(value));
      await frame(120);
    };
    const more = (device: Locator) =>
      device.getByRole("button", { name: "More", exact: true }).click();

    await frame(1000);
    for (const value of [55, 60, 65, 70, 75, 80]) await slid(laptop, value, phone);
    await frame(700);
    await phone.getByRole("switch").click();
    await phone.getByText("cut off", { exact: true }).waitFor();
    await frame(1200);
    for (const value of [70, 60, 50, 40, 30, 20]) await slid(phone, value);
    await more(phone);
    await more(phone);
    await phone.getByRole("textbox", { name: "Text" }).fill("written on the train");
    await frame(1200);
    await more(laptop);
    await laptop.getByRole("textbox", { name: "Text" }).fill("written at the desk");
    await frame(1500);
    await phone.getByRole("switch").click();
    await expect.poll(() => laptop.getByRole("slider").inputValue()).toBe("20");
    await phone.locator(".merge").first().waitFor();
    await frame(3000);
    await page.context().close();
    expect(taken).toBeGreaterThan(15);
  },
);
