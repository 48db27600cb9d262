// Two people in a call: `VoiceClient` over livekit-client in a real Chromium, with a fake microphone
// each, on a real LiveKit server.
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { VoiceClient } from "../../src/voice";
import { LiveKit } from "../support/livekit";
import { HOME, killPage, launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { mint, Site, until } from "../support/server";

declare global {
  var voice: VoiceClient;
  var seen: Record<string, unknown>[];
}

const PAGE = `<script type="module">
  import { connect } from "@syncbridge/client";
  import { livekit, VoiceClient } from "@syncbridge/client/voice";
  import * as library from "/built/livekit-client.esm.mjs";
  const { url, http, media, tokens } = await (await fetch("/login")).json();
  const token = tokens[location.hash.slice(1)];
  globalThis.seen = [];
  const session = await connect({ url, token, deviceId: "laptop" });
  session.on("voice", ({ data }) => seen.push(data));
  globalThis.voice = new VoiceClient({ session, media: livekit(library, media), url: http, token });
  for (const name of ["state", "participantJoined", "participantLeft", "left", "muted", "error"])
    voice.on(name, (value) => seen.push({ event: name, value: value?.userId ?? value }));
</script>`;
/** Without it, and without Go, these tests are skipped. */
const program = await LiveKit.program();
const WEBHOOK_OF_A_KILLED_CLIENT = 45_000;

let livekit: LiveKit;
let site: Site;
let pages: Server;
let address: string;
let browsers: Browser[] = [];
let ann: string;
let bob: string;
let channel: string;

beforeAll(async () => {
  if (!program) return;
  const [port, server] = [await freePort(), await freePort()];
  address = `http://127.0.0.1:${port}`;
  livekit = await LiveKit.start(program, server);
  const settings = { ...livekit.settings, SYNCBRIDGE_ORIGINS: address };
  site = await Site.start(settings, server);
  const grants = { voice: [{ waddle: "*", channel: "*", permissions: ["speak"] }] };
  const login = () => ({
    url: site.url,
    http: `http://127.0.0.1:${site.port}`,
    media: livekit.url.replace("http", "ws"),
    tokens: { ann: mint(ann, grants), bob: mint(bob, grants) },
  });
  const built = join(HOME, "node_modules/livekit-client/dist");
  pages = serve(port, { "/": PAGE }, { login, built });
});
afterAll(async () => {
  pages?.close();
  await site?.close();
  await livekit?.close();
});
beforeEach(() => {
  [ann, bob, channel] = [randomUUID(), randomUUID(), randomUUID()];
});
afterEach(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  browsers = [];
});

/** A person's own browser. */
async function opened(who: "ann" | "bob"): Promise<Page> {
  const flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
  const browser = await launch(...flags);
  browsers.push(browser);
  const page = await browser.newPage();
  await page.goto(`${address}#${who}`);
  await page.waitForFunction(() => globalThis.voice);
  return page;
}

async function both(): Promise<[Page, Page]> {
  const people = await Promise.all([opened("ann"), opened("bob")]);
  for (const page of people)
    await page.evaluate((id) => voice.joinVoiceChannel("team", id), channel);
  await heard(people[0], "participantJoined", bob);
  return people;
}

/** Until a page has seen an event with a value. */
async function heard(page: Page, event: string, value: unknown, timeout = 30_000): Promise<void> {
  await page.waitForFunction(
    ([name, wanted]) => seen.some((one) => one.event === name && one.value === wanted),
    [event, value],
    { timeout },
  );
}

/** How many are in each room of LiveKit's that is not empty. */
async function crowds(): Promise<number[]> {
  return Object.values(await livekit.rooms()).flatMap((room) => (room.length ? [room.length] : []));
}

it.skipIf(!program)("lets two people meet, one of them mute, and go", async () => {
  const [first, second] = await both();
  expect(await crowds()).toEqual([2]);

  expect(await second.evaluate(() => voice.toggleMute())).toBe(true);
  await first.waitForFunction(
    (user) => seen.some(({ userId, state }) => userId === user && state === "muted"),
    bob,
  );
  await second.evaluate(() => voice.leaveVoiceChannel());
  await heard(first, "participantLeft", bob);
  await until(async () => (await crowds()).join() === "1");
  expect(await first.evaluate(() => seen.filter(({ event }) => event === "error"))).toEqual([]);
});

it.skipIf(!program)("follows a migration to another room", async () => {
  const people = await both();
  const before = Object.keys(await livekit.rooms());

  const path = `/voice/channels/${channel}/migrate`;
  expect((await site.admin("POST", path, {})).status).toBe(200);
  const moved = async () => {
    const rooms = Object.entries(await livekit.rooms());
    return rooms.some(([name, room]) => !before.includes(name) && room.length === 2);
  };
  await until(moved, 30_000);

  for (const page of people) {
    expect(await page.evaluate(() => voice.channelId)).toBe(channel);
    expect(await page.evaluate(() => seen.filter(({ event }) => event === "left"))).toEqual([]);
  }
});

it.skipIf(!program)("shows that a browser was killed", async () => {
  const [first, second] = await both();

  await killPage(second.context().browser()!, second);
  await heard(first, "participantLeft", bob, WEBHOOK_OF_A_KILLED_CLIENT);
  expect(await first.evaluate(() => voice.channelId)).toBe(channel);
});
