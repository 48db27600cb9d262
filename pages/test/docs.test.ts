// The reference at `/docs`: readable light and dark, wide and narrow, by keys, and its requests are sent.
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Development, launch, opened, serious } from "./support";

let server: Development;
let browser: Browser;

beforeAll(async () => {
  [server, browser] = await Promise.all([Development.start(), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

it.each([
  ["light", 1280],
  ["dark", 360],
] as const)("can be read: %s, %d px", async (colorScheme, width) => {
  const viewport = { width, height: 900 };
  const { page, complaints } = await opened(browser, `${server.url}/docs`, {
    colorScheme,
    viewport,
  });
  const write = page.locator("#post_session_snapshot");
  await write.locator("summary").first().click();
  await write.getByText("Body: fields").click();
  await write.getByText("Example").click();
  await page.locator("#get_admin_sessions summary").first().click();
  await page.locator("#socket").waitFor();

  expect(await serious(page)).toEqual([]);
  const overflow = () => document.documentElement.scrollWidth - innerWidth;
  expect(await page.evaluate(overflow)).toBeLessThanOrEqual(0);
  expect(complaints).toEqual([]);
  await page.context().close();
});

it("finds an operation, sends it, and shows the answer as text", async () => {
  const { page, complaints, asked } = await opened(browser, `${server.url}/docs`);
  await page.locator("#socket").waitFor();
  await page.getByLabel("Show").fill("/Session/Snap");
  const shown = page.locator(".operation:visible");
  expect(await shown.count()).toBe(1);
  expect(await page.getByRole("heading", { level: 2 }).allTextContents()).toEqual([
    "WebSocket",
    "session",
  ]);
  await shown.locator("summary").first().click();
  const body = await shown.getByLabel("body").inputValue();
  const state_data = { a: "<img src=x onerror=alert(1)>" };
  await shown.getByLabel("body").fill(JSON.stringify({ ...JSON.parse(body), state_data }));
  await shown.getByRole("button", { name: "Send" }).click();
  await shown.getByText(/^201 Created/).waitFor();

  await page.getByLabel("Show").fill("/session/{session_id}");
  const read = page.locator("#get_session_session_id");
  await read.locator("summary").first().click();
  await read.getByLabel("session_id").fill(JSON.parse(body).session_id);
  await read.getByRole("button", { name: "Send" }).click();
  await read.getByText("<img src=x onerror=alert(1)>").waitFor();
  expect(complaints).toEqual([]);
  expect(asked.filter((url) => !url.startsWith(server.url))).toEqual([]);
  await page.context().close();
});
