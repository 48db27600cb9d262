// A voice channel in a real Chromium with a fake microphone, against a real server and a stand-in of
// the voice provider; and what a page is told where the microphone is denied, or there is none.
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import type { VoiceClient } from "../../src/voice";
import { launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { mint, Site, until, voiceProvider } from "../support/server";

declare global {
  var voice: VoiceClient;
  var shown: string[];
  /** How loud the microphone is, 0 to 1, while this device is in the media. */
  var level: () => number;
}

/** Its media are the microphone itself: what a provider's library would send. */
const PAGE = `<script type="module">
  import { connect } from "@syncbridge/client";
  import { VoiceClient } from "@syncbridge/client/voice";
  const { url, http, token } = await (await fetch("/login")).json();
  globalThis.shown = [];
  const session = await connect({ url, token, deviceId: "laptop" });
  const media = {
    async join(grant, muted) {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const [track] = stream.getTracks();
      track.enabled = !muted;
      const sound = new AudioContext();
      const analyser = sound.createAnalyser();
      sound.createMediaStreamSource(stream).connect(analyser);
      const samples = new Float32Array(analyser.fftSize);
      globalThis.level = () => {
        analyser.getFloatTimeDomainData(samples);
        return Math.max(...samples.map(Math.abs));
      };
      return {
        id: "m1",
        mute: async (off) => void (track.enabled = !off),
        unlockAudio: () => sound.resume(),
        leave: async () => track.stop(),
      };
    },
  };
  const show = (what) => () => shown.push(what);
  globalThis.voice = new VoiceClient({
    session, media, url: http, token,
    notifyUserSessionFull: show("full"),
    showPermissionError: show("permission"),
    requestDevicePermissions: show("device"),
    showGenericError: (error) => shown.push(error.code + " " + error.message),
  });
</script>`;

let provider: Awaited<ReturnType<typeof voiceProvider>>;
let site: Site;
let pages: Server;
let browser: Browser;
let user: string;
let address: string;
let watcher: Session<never>;

beforeAll(async () => {
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  provider = await voiceProvider();
  site = await Site.start({ ...provider.settings, SYNCBRIDGE_ORIGINS: address });
  const token = () =>
    mint(user, { voice: [{ waddle: "*", channel: "*", permissions: ["speak"] }] });
  const http = `http://127.0.0.1:${site.port}`;
  pages = serve(port, { "/": PAGE }, { login: () => ({ url: site.url, http, token: token() }) });
});
afterAll(async () => {
  pages?.close();
  await site?.close();
  await provider?.close();
});
afterEach(async () => {
  await watcher?.close().catch(() => {});
  await browser?.close();
});

async function opened(...flags: string[]): Promise<Page> {
  user = randomUUID();
  const token = mint(user, { voice: [{ waddle: "*", channel: "*", permissions: [] }] });
  watcher = await connect<never>({ url: site.url, token, deviceId: "watcher" });
  browser = await launch(...flags);
  const page = await browser.newPage();
  await page.goto(address);
  await page.waitForFunction(() => globalThis.voice);
  return page;
}

/** Code of the error with which a join ends, and what was shown. */
async function refusal(page: Page): Promise<[string, string[]]> {
  const code = await page.evaluate(() =>
    voice.joinVoiceChannel("team", "quiet").then(
      () => "joined",
      (error) => error.code,
    ),
  );
  return [code, await page.evaluate(() => shown)];
}

it("joins with a microphone, is seen there, muted, and gone", async () => {
  const page = await opened("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
  const channelId = randomUUID();
  const told: Record<string, unknown>[] = [];
  watcher.on("voice", ({ data }) => told.push(data));
  await page.evaluate((id) => voice.joinVoiceChannel("team", id), channelId);
  await watcher.request("voice_watch", { channelId, waddleId: "team" });
  const states = () => told.filter(({ type }) => type === "voice_state");
  const people = () => (states().at(-1)?.participants ?? []) as { userId: string }[];
  await until(() => people().some(({ userId }) => userId === user));
  await page.evaluate(() => voice.unlockAudio());
  await page.waitForFunction(() => level() > 0.01);

  expect(await page.evaluate(() => voice.toggleMute())).toBe(true);
  await until(() => told.some(({ userId, state }) => userId === user && state === "muted"));
  await page.waitForFunction(() => level() === 0);

  await page.evaluate(() => voice.leaveVoiceChannel());
  await until(() => told.some(({ userId, state }) => userId === user && state === "released"));
  expect(await page.evaluate(() => [shown, voice.channelId])).toEqual([[], undefined]);
});

it.each(["pagehide", "freeze"])(
  "says that it is out of the call before the socket is closed: %s",
  async (name) => {
    const page = await opened(
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
    );
    const channelId = randomUUID();
    const told: Record<string, unknown>[] = [];
    watcher.on("voice", ({ data }) => told.push(data));
    await watcher.request("voice_watch", { channelId, waddleId: "team" });
    await page.evaluate((id) => voice.joinVoiceChannel("team", id), channelId);
    await until(() => told.some(({ userId, state }) => userId === user && state === "connected"));
    await page.evaluate((event) => {
      const target = event === "freeze" ? document : window;
      target.dispatchEvent(new Event(event));
    }, name);
    await until(() => told.some(({ userId, state }) => userId === user && state === "released"));

    const gone = told.find(({ userId, state }) => userId === user && state === "released");
    expect(gone!.reason).toBe("left");
  },
);

it("says that the microphone was denied", async () => {
  const page = await opened(
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream=deny",
  );

  expect(await refusal(page)).toEqual(["permission_denied", ["permission"]]);
});

it("says that there is no microphone", async () => {
  const page = await opened("--use-fake-ui-for-media-stream");

  expect(await refusal(page)).toEqual(["device_error", ["device"]]);
});
