// The voice client over a media port of the test's: what is joined, told, left, tried again.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
  callsOf,
  type Grant,
  livekit,
  type MediaEvents,
  realtimekit,
  VoiceClient,
  type VoiceCode,
  VoiceError,
} from "../../src/voice";
import { settle } from "../support/clock";
import { World } from "../support/world";

type Body = Record<string, unknown> & { type: string };
let world: World;
let told: Body[];
let joined: { grant: Grant; muted: boolean; events: MediaEvents; left: boolean }[];
let failures: VoiceError[];
let answers: Response[];
let shown: string[];
let client: VoiceClient;
let session: ReturnType<World["session"]>;

const grant = (sessionId: string) =>
  Response.json({ token: "media", sessionId, iceServers: [], expiresAt: "" });
const refused = (status: number, code: string) =>
  Response.json({ code }, { status, headers: { "Content-Type": "application/problem+json" } });

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
  [world, told, joined, failures, answers, shown] = [new World(), [], [], [], [], []];
  const receive = world.server.receive.bind(world.server);
  world.server.receive = (peer, data) => {
    const message = JSON.parse(data);
    if (typeof message.type !== "string") return receive(peer, data);
    const { correlation_id, ...body } = message;
    told.push(body);
    const state = { type: "voice_state", channelId: "c", sessionId: "s1", phase: "active" };
    peer.send({ ...state, participants: [], reportIntervalMs: 5_000, correlation_id });
  };
  session = world.session();
  await world.clock.run(100);
  vi.stubGlobal("fetch", async () => answers.shift() ?? grant("s1"));
  client = new VoiceClient({
    session,
    url: "http://server",
    token: "t",
    media: { join },
    microphone: async () => {},
    notifyUserSessionFull: () => shown.push("full"),
    showPermissionError: () => shown.push("permission"),
    requestDevicePermissions: () => shown.push("device"),
    showGenericError: (error) => shown.push(error.code),
  });
});
afterEach(async () => {
  const closing = client.close();
  await pass();
  await closing;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function join(given: Grant, muted: boolean, events: MediaEvents) {
  const failure = failures.shift();
  if (failure) throw failure;
  const one = { grant: given, muted, events, left: false };
  joined.push(one);
  return {
    id: `m${joined.length}`,
    // As livekit-client does, before it returns.
    mute: async (off: boolean) => events.muted(off),
    unlockAudio: async () => {},
    leave: async () => {
      one.left = true;
    },
  };
}

async function pass(ms = 100): Promise<void> {
  for (let i = 0; i < 10; i++) {
    await settle();
    await vi.advanceTimersByTimeAsync(ms / 10);
    await world.clock.run(ms / 10);
  }
}
async function say(message: object): Promise<void> {
  for (const peer of world.server.peers) peer.send({ channelId: "c", ...message });
  await pass();
}
const kinds = () => told.map((body) => body.type);

it("joins, says so again and again, and leaves", async () => {
  await client.joinVoiceChannel("w", "c");
  await pass();
  const report = { channelId: "c", waddleId: "w", connectionId: "m1", sessionId: "s1" };
  expect(told).toEqual([{ type: "voice_join", ...report, muted: false }]);
  await pass(11_000);
  expect(kinds()).toEqual(["voice_join", "voice_join", "voice_join"]);
  world.cut();
  await pass(2_000);
  expect(kinds().length).toBe(4);
  const gone = client.leaveVoiceChannel();
  await pass();
  await gone;
  const place = { channelId: "c", waddleId: "w", connectionId: "m1" };
  expect(told.at(-1)).toEqual({ type: "voice_leave", ...place });
  expect(joined[0]!.left).toBe(true);
  await pass(11_000);
  expect(kinds().at(-1)).toBe("voice_leave");
});

it("tells who else comes and goes, also what a break of the connection hid", async () => {
  const seen: string[] = [];
  client.on("participantJoined", ({ userId }) => seen.push(`+${userId}`));
  client.on("participantLeft", ({ userId }) => seen.push(`-${userId}`));
  await client.joinVoiceChannel("w", "c");
  await pass();
  const state = { type: "voice_state", sessionId: "s1", phase: "active" };
  await say({ ...state, participants: [{ userId: "u" }, { userId: "ann" }] });
  await say({ type: "voice_state_update", userId: "bob", state: "connected" });
  await say({ type: "voice_state_update", userId: "bob", state: "muted" });
  await say({ type: "voice_state_update", userId: "ann", state: "disconnected", reason: "left" });
  expect(seen).toEqual(["+ann", "+bob", "-ann"]);
  await say({ ...state, participants: [{ userId: "u" }, { userId: "eve" }] });
  expect(seen).toEqual(["+ann", "+bob", "-ann", "-bob", "+eve"]);
});

it("tells of the microphone and of speaking", async () => {
  await client.joinVoiceChannel("w", "c");
  await pass();
  expect(await client.toggleMute()).toBe(true);
  await pass();
  expect(told.at(-1)).toMatchObject({ type: "voice_join", muted: true });
  expect(await client.toggleMute()).toBe(false);
  joined[0]!.events.speaking(true);
  await pass(2_000);
  joined[0]!.events.speaking(false);
  await pass(2_000);
  const said = told.filter((b) => b.type === "speaking").map((b) => b.isSpeaking);
  expect(said).toEqual([true, true, true, false]);
});

it("moves to the new session before it leaves the old one", async () => {
  await client.joinVoiceChannel("w", "c");
  await pass();
  answers.push(grant("s2"));
  await say({ type: "session_migration", oldSessionId: "s1", newSessionId: "s2" });
  expect(joined.map((j) => [j.grant.sessionId, j.left])).toEqual([
    ["s1", true],
    ["s2", false],
  ]);
  expect(told.at(-1)).toMatchObject({ type: "voice_join", connectionId: "m2", sessionId: "s2" });
});

it.each([
  [
    {
      type: "voice_state_update",
      userId: "u",
      deviceId: "a",
      state: "released",
      reason: "handoff",
    },
    "handoff",
  ],
  [{ type: "session_ended", sessionId: "s1", reason: "ended" }, "ended"],
])("is out of a call that is not its own any more: %o", async (message, reason) => {
  const left: string[] = [];
  client.on("left", (event) => left.push(event.reason));
  await client.joinVoiceChannel("w", "c");
  await pass();
  await say(message);
  await pass();
  expect([left, joined[0]!.left, client.channelId]).toEqual([[reason], true, undefined]);
});

it("hears nothing of another waddle's channel with the same id", async () => {
  const left: string[] = [];
  client.on("left", (event) => left.push(event.reason));
  await client.joinVoiceChannel("w", "c");
  await pass();
  const state = { type: "voice_state", sessionId: "s", phase: "active" };
  await say({ ...state, waddleId: "w", participants: [{ userId: "ann" }] });
  await say({ ...state, waddleId: "x", participants: [{ userId: "eve" }] });
  const users = (waddle?: string) =>
    callsOf(session)
      .get("c", waddle)
      ?.participants.map(({ userId }) => userId);
  expect([users("w"), users("x"), users()]).toEqual([["ann"], ["eve"], ["ann"]]);
  await say({ type: "session_ended", waddleId: "x", sessionId: "s", reason: "ended" });
  expect([users("w"), users("x"), left]).toEqual([["ann"], undefined, []]);
  await say({ type: "session_ended", waddleId: "w", sessionId: "s", reason: "ended" });
  expect(left).toEqual(["ended"]);
});

it("withdraws a call whose media does not come back", async () => {
  await client.joinVoiceChannel("w", "c");
  await pass();
  joined[0]!.events.state("reconnecting", "");
  await pass(12_000);
  expect(kinds().filter((kind) => kind === "voice_join").length).toBe(1);
  await pass(10_000);
  expect(kinds().at(-1)).toBe("voice_leave");
});

it("tries again what passes, a spent token once, and gives the rest to its handler", async () => {
  const flaky = (code: VoiceCode) => failures.push(new VoiceError(code, code));
  flaky("network_error");
  flaky("token_expired");
  answers.push(refused(503, "provider_unavailable"));
  const going = client.joinVoiceChannel("w", "c");
  await pass(30_000);
  await going;
  expect(joined.length).toBe(1);

  for (const [code, handler] of [
    ["permission_denied", "permission"],
    ["device_error", "device"],
    ["unknown", "unknown"],
  ] as const) {
    flaky(code);
    const failing = client.joinVoiceChannel("w", "c").catch((error) => error.code);
    await pass(1_000);
    expect([await failing, shown.pop()]).toEqual([code, handler]);
  }
  answers.push(refused(409, "session_full"));
  const full = client.joinVoiceChannel("w", "c").catch((error) => error.code);
  await pass(1_000);
  expect([await full, shown.pop()]).toEqual(["session_full", "full"]);
});

class Source {
  readonly heard = new Map<string, (...args: never[]) => void>();
  on(name: string, listener: (...args: never[]) => void) {
    this.heard.set(name, listener);
  }
  tell(name: string, event?: unknown, more?: unknown) {
    this.heard.get(name)!(...([event, more] as never[]));
  }
}
const listener = (log: unknown[]): MediaEvents => ({
  state: (...all) => log.push(all),
  speaking: (speaking) => log.push(["speaking", speaking]),
  muted: (muted) => log.push(["muted", muted]),
  playbackBlocked: () => log.push("blocked"),
});

it("speaks with LiveKit", async () => {
  const log: unknown[] = [];
  const rooms: Room[] = [];
  class Room extends Source {
    localParticipant = {
      sid: "PA_1",
      setMicrophoneEnabled: async (on: boolean) => void log.push(["microphone", on]),
    };
    constructor() {
      super();
      rooms.push(this);
    }
    connect = async (url: string, token: string) => void log.push([url, token]);
    disconnect = async () => void log.push("disconnected");
    startAudio = async () => {};
  }
  const media = livekit({ Room }, "wss://media");
  const connection = await media.join({ token: "t", sessionId: "s" }, true, listener(log));
  rooms[0]!.tell("reconnecting");
  rooms[0]!.tell("activeSpeakersChanged", [{ sid: "PA_1" }]);
  rooms[0]!.tell("trackMuted", {}, { sid: "PA_2" });
  rooms[0]!.tell("trackUnmuted", {}, { sid: "PA_1" });
  rooms[0]!.tell("audioPlaybackChanged", false);
  rooms[0]!.tell("disconnected", 2);
  await connection.mute(false);
  await connection.leave();
  expect([connection.id, log]).toEqual([
    "PA_1",
    [
      ["wss://media", "t"],
      ["microphone", false],
      ["reconnecting", ""],
      ["speaking", true],
      ["muted", false],
      "blocked",
      ["lost", "disconnected: 2"],
      ["microphone", true],
      "disconnected",
    ],
  ]);
});

it("speaks with RealtimeKit, which never says that somebody has stopped to speak", async () => {
  const log: unknown[] = [];
  const self = Object.assign(new Source(), {
    peerId: "p1",
    enableAudio: async () => void log.push("on"),
    disableAudio: async () => void log.push("off"),
  });
  const [participants, meta] = [new Source(), new Source()];
  const room = {
    join: async () => void log.push("join"),
    leave: async () => void log.push("leave"),
  };
  const init = async (options: object) => {
    log.push(options);
    return { self, participants, meta, ...room };
  };
  const connection = await realtimekit({ init }).join(
    { token: "t", sessionId: "s" },
    false,
    listener(log),
  );
  participants.tell("activeSpeaker", { peerId: "p1", volume: 1 });
  participants.tell("activeSpeaker", { peerId: "p2", volume: 1 });
  await vi.advanceTimersByTimeAsync(1_000);
  meta.tell("mediaConnectionUpdate", { state: "reconnecting" });
  self.tell("roomLeft", { state: "kicked" });
  await connection.mute(true);
  expect([connection.id, log]).toEqual([
    "p1",
    [
      { authToken: "t", defaults: { audio: true, video: false } },
      "join",
      ["speaking", true],
      ["speaking", false],
      ["reconnecting", ""],
      ["lost", "kicked"],
      "off",
    ],
  ]);
  const spent = { init: () => Promise.reject(Object.assign(new Error("bad"), { code: "0004" })) };
  const error = await realtimekit(spent)
    .join({ token: "t", sessionId: "s" }, false, listener([]))
    .catch((e) => e);
  expect(error.code).toBe("token_expired");
});
