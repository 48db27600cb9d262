// The demo at `/` of a development server: each of its controls, on two devices.
import type { Browser, Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import {
  Development,
  evidence,
  launch,
  MICROPHONE,
  opened,
  PLAIN,
  PLAIN_NAME,
  until,
} from "./support";

let server: Development;
let browser: Browser;
let page: Page;
let complaints: string[];
let asked: string[];
let phone: Locator;
let laptop: Locator;

beforeAll(async () => {
  server = await Development.start();
  browser = await launch(...MICROPHONE);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});
beforeEach(async () => {
  ({ page, complaints, asked } = await opened(browser, server.url));
  [phone, laptop] = await devices(page);
});
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") await evidence(page, task.name);
  await page.context().close();
  expect(complaints).toEqual([]);
  expect(asked.filter((url) => !url.startsWith(server.url))).toEqual([]);
});

/** Both devices of a page, online. */
async function devices(on: Page): Promise<[Locator, Locator]> {
  const found = [device(on, "Phone"), device(on, "Laptop")] as [Locator, Locator];
  for (const one of found) await sees(one, "online");
  return found;
}

const device = (on: Page, name: string) => on.getByRole("region", { name, exact: true });
const sees = (where: Locator, text: string | RegExp) =>
  where.getByText(text).first().waitFor({ state: "visible" });
const press = (where: Locator | Page, name: string) =>
  where.getByRole("button", { name, exact: true }).click();
const volume = (where: Locator) => where.getByRole("slider", { name: "Slider" });
const count = (where: Locator) => where.getByRole("group", { name: "Counter" }).locator("output");
const note = (where: Locator) => where.getByRole("textbox", { name: "Text" });
const network = (where: Locator) => where.getByRole("switch", { name: "Network" });
const person = (where: Locator, name: string) =>
  where.getByRole("list", { name: "Voice room" }).getByRole("listitem").filter({ hasText: name });
const says = (where: Locator, name: string, state: string) =>
  until(
    async () => (await person(where, name).locator(".says").textContent()) === state,
    15_000,
    () => `${name}: ${state}`,
  );
const reads = (field: Locator, value: string) =>
  until(
    async () => (await field.inputValue()) === value,
    15_000,
    () => `a field with ${value}`,
  );
const shows = (where: Locator, text: string) =>
  until(
    async () => (await where.textContent()) === text,
    15_000,
    () => `something with ${text}`,
  );

it("has the same slider, counter, list and text on both devices", async () => {
  await volume(phone).fill("80");
  await reads(volume(laptop), "80");

  for (const name of ["More", "More", "More", "Less"]) await press(phone, name);
  await press(laptop, "More");
  await shows(count(phone), "3");
  await shows(count(laptop), "3");

  await laptop.getByRole("textbox", { name: "List" }).fill("Bring the slides");
  await press(laptop, "Add");
  await phone.getByRole("checkbox", { name: "Bring the slides" }).check();
  const there = laptop.getByRole("checkbox", { name: "Bring the slides" });
  await until(() => there.isChecked());
  await press(laptop, "Remove Bring the slides");
  await until(async () => (await phone.getByText("Bring the slides").count()) === 0);

  await note(phone).pressSequentially("one, two");
  await reads(note(laptop), "one, two");
});

it("keeps what is changed while a device is cut off, and merges it", async () => {
  await note(laptop).fill("before");
  await reads(note(phone), "before");
  await network(phone).click();
  await sees(phone, "cut off");
  await sees(laptop, "1 device,");

  await press(phone, "More");
  await press(laptop, "More");
  await note(phone).fill("from the phone");
  await note(laptop).fill("from the laptop");
  await phone.getByRole("textbox", { name: "List" }).fill("from here");
  await press(phone, "Add");
  await sees(phone, "3 updates wait: counter, text, list");
  await shows(count(laptop), "1");
  await reads(note(laptop), "from the laptop");

  await network(phone).click();
  await sees(phone, /Back, and resumed at version \d+/);
  for (const one of [phone, laptop]) {
    await shows(count(one), "2");
    await reads(note(one), "from the laptop\nfrom the phone");
    await sees(one, "from here");
  }
  const merge = phone.locator(".merge");
  expect(await merge.locator("dd").allTextContents()).toEqual([
    "“from the phone”",
    "“from the laptop”",
    "“from the laptop ⏎ from the phone”",
  ]);
  await press(phone, "Close: text");
  await until(async () => (await merge.count()) === 0);
});

it("shows the pointers of the other device while they are there", async () => {
  const pad = (where: Locator) => where.getByRole("application", { name: "Cursors" });
  const pointer = pad(phone).locator(".pointer", { hasText: "Laptop" });
  await pad(laptop).hover({ position: { x: 30, y: 40 } });
  await pointer.waitFor();
  await page.getByRole("heading", { name: "SyncBridge" }).hover();
  await pointer.waitFor({ state: "detached" });

  await pad(laptop).focus();
  for (const key of ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowDown"])
    await page.keyboard.press(key);
  await until(async () => (await pointer.getAttribute("style")) === "left: 54%; top: 50%;");
  await note(laptop).focus();
  await pointer.waitFor({ state: "detached" });
});

it("has a voice room with who speaks, and moves the call to the other device", async () => {
  await press(page.locator(".guest"), "Invite to the voice room");
  await press(phone, "Join");
  for (const one of [phone, laptop]) {
    await person(one, "Robin").waitFor();
    await person(one, "You on Phone").waitFor();
    await says(one, "You", "speaks");
  }
  await press(page.locator(".guest"), "Speak");
  await says(laptop, "Robin", "speaks");
  await press(page.locator(".guest"), "Stop speaking");
  await says(laptop, "Robin", "");

  await press(phone, "Mute");
  await says(laptop, "You", "muted");
  await press(phone, "Unmute");
  await says(laptop, "You", "speaks");

  await press(laptop, "Join");
  await person(phone, "You on Laptop").waitFor();
  await sees(phone, /Out of the call/);
  await press(laptop, "Leave");
  await person(phone, "You").waitFor({ state: "detached" });
  await press(page.locator(".guest"), "Send away");
  await sees(phone, "Nobody is in it");
});

it("keeps a call when the network comes back in time", async () => {
  await phone.getByRole("checkbox", { name: /test tone/ }).check();
  await press(phone, "Join");
  await says(laptop, "You", "speaks");
  await network(phone).click();
  await sees(phone, "reconnecting");
  await network(phone).click();
  await sees(phone, "connected");
  await says(laptop, "You", "speaks");
});

it("shows what travels, without tokens", async () => {
  const log = page.getByRole("region", { name: "What travels" });
  const rows = log.locator("details");
  await press(phone, "More");
  await sees(log, "counter INCR 1");
  await sees(log, "version 1: counter = 1");
  const signed = rows.filter({ hasText: "AUTH" }).filter({ hasText: "new here" });
  await signed.first().locator("summary").click();
  const text = await signed.first().locator("pre").textContent();
  expect(JSON.parse(text!).payload).toMatchObject({ token: "…", device_id: expect.any(String) });

  await press(log, "Pause");
  const shown = await rows.count();
  await press(phone, "More");
  await shows(count(laptop), "2");
  expect(await rows.count()).toBe(shown);
  await press(log, "Go on");
  await press(log, "Clear");
  await sees(log, "Nothing yet");
  await press(phone, "Less");
  await sees(log, "counter INCR -1");
});

it("is the same session when it is loaded again, and in another window", async () => {
  await volume(phone).fill("7");
  await reads(volume(laptop), "7");
  await page.reload();
  await reads(volume(laptop), "7");
  const link = page.getByRole("link", { name: "Same session, new window" });
  const opening = page.context().waitForEvent("page");
  await link.click();
  const [third] = await devices(await opening);
  await reads(volume(third), "7");
  await sees(phone, "4 devices");
  await volume(third).fill("9");
  await reads(volume(phone), "9");
});

it("is other devices of the session in a copy of its tab", async () => {
  const opening = page.context().waitForEvent("page");
  await page.evaluate(() => window.open(location.href));
  await devices(await opening);
  await sees(phone, "4 devices");
  expect(await phone.getByText("Ended").count()).toBe(0);
});

it("shows what it can of a state that others have written", async () => {
  await page.waitForFunction(() => location.hash.length > 1);
  const session_id = new URL(page.url()).hash.slice(1);
  const list = { a: null, b: "b", c: { text: 5 }, d: { text: "<b>milk</b>", done: true } };
  const state_data = { list, text: 5, slider: { a: 1 }, counter: 2 };
  const body = { session_id, user_id: "demo", device_id: "another", state_data };
  await server.ask("POST", "/session/snapshot", body);
  for (const one of [phone, laptop]) {
    await one.getByRole("checkbox", { name: "<b>milk</b>" }).waitFor();
    expect(await one.getByRole("checkbox", { name: /^(?!test tone)/ }).count()).toBe(1);
    await shows(count(one), "2");
  }
  await press(phone, "More");
  await shows(count(laptop), "3");
});

it("takes no input when its session has ended", async () => {
  await press(phone, "More");
  await shows(count(laptop), "1");
  await server.ask("DELETE", `/admin/sessions/${new URL(page.url()).hash.slice(1)}`);
  for (const one of [phone, laptop]) {
    await sees(one, /^Ended: .+\. Reload the page\.$/);
    expect(await one.getByRole("button", { name: "More" }).isDisabled()).toBe(true);
    expect(await note(one).isDisabled()).toBe(true);
  }
  await page.reload();
  [phone, laptop] = await devices(page);
  await press(phone, "More");
  await shows(count(laptop), "1");
});

it("goes on when the server was away, with what was written meanwhile", async () => {
  await press(phone, "More");
  await shows(count(laptop), "1");
  await server.stop();
  for (const one of [phone, laptop]) await sees(one, "No connection; trying again.");
  await press(phone, "More");
  await press(laptop, "More");
  await server.begin();
  for (const one of [phone, laptop]) {
    await until(async () => (await one.locator(".status").textContent()) === "online", 40_000);
    await shows(count(one), "3");
  }
  complaints = complaints.filter((text) => !text.includes("ERR_"));
});

it("leads to the interface's description and to the dashboard", async () => {
  for (const [name, title] of [
    ["API reference", "SyncBridge API"],
    ["Dashboard", "SyncBridge dashboard"],
  ]) {
    await page.getByRole("link", { name }).click();
    await page.waitForURL((url) => url.pathname !== "/");
    expect(await page.title()).toBe(title);
    await page.goBack();
  }
});

it("is there on a page without TLS, too", async () => {
  const plain = await launch(PLAIN_NAME);
  try {
    const url = `http://${PLAIN}:${server.port}/`;
    const { page: shown, complaints: wrong } = await opened(plain, url);
    await device(shown, "Phone").waitFor();
    expect(await shown.evaluate(() => isSecureContext)).toBe(false);
    expect(wrong.filter((text) => !text.includes("status of 40"))).toEqual([]);
  } finally {
    await plain.close();
  }
});

it("says that there is no microphone", async () => {
  const deaf = await launch("--use-fake-ui-for-media-stream");
  try {
    const { page: silent } = await opened(deaf, server.url);
    const [one] = await devices(silent);
    await press(one, "Join");
    await sees(one, "There is no microphone; try the test tone.");
    await one.getByRole("checkbox", { name: /test tone/ }).check();
    await press(one, "Join");
    await person(one, "You on Phone").waitFor();
  } finally {
    await deaf.close();
  }
});
