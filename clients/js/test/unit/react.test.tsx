// @vitest-environment happy-dom
// The hooks in React: what they show, how often they render, strict mode, a server.
import { act, type ReactNode, StrictMode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Options, Session } from "../../src/core/session";
import {
  SyncBridgeProvider,
  useCall,
  usePresence,
  useSession,
  useStatus,
  useValue,
} from "../../src/react";
import { World } from "../support/world";

let world: World;
const made: Session[] = [];
vi.mock("@syncbridge/client", () => ({
  createSession: (options: Options) => {
    made.push(world.session(options));
    return made.at(-1);
  },
}));

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });
let root: Root;
let box: HTMLElement;
const options: Options = { url: "ws://model/ws", token: "t", deviceId: "a" };

beforeEach(() => {
  world = new World();
  made.length = 0;
  box = document.createElement("div");
  root = createRoot(box);
});
afterEach(() => act(async () => root.unmount()));

const show = (page: ReactNode) => act(async () => root.render(page));
const pass = (ms = 100) => act(() => world.clock.run(ms));
const wait = (ms: number) => act(() => new Promise((resolve) => setTimeout(resolve, ms)));

let renders = 0;
function Mood() {
  renders += 1;
  const mood = useValue<string>("mood");
  return <p>{mood ?? "none"}</p>;
}
function Around() {
  return (
    <i>
      {useStatus()} {usePresence().map((device) => device.deviceId)}
    </i>
  );
}

it("shows a value, and renders for nothing else", async () => {
  const session = world.session();
  await show(
    <SyncBridgeProvider session={session}>
      <Mood />
    </SyncBridgeProvider>,
  );
  await pass();
  expect(box.textContent).toBe("none");
  await act(async () => void session.set("mood", "calm"));
  await pass();
  expect(box.textContent).toBe("calm");
  renders = 0;
  await act(async () => void session.set("other", 1));
  await act(async () => void session.set("mood", "calm"));
  await pass(1_000);
  expect(renders).toBe(0);
});

it("shows the status and who is there, and renders only when that changes", async () => {
  const session = world.session();
  const log: unknown[] = [];
  function Spy() {
    log.push(usePresence());
    return null;
  }
  await show(
    <SyncBridgeProvider session={session}>
      <Around />
      <Spy />
    </SyncBridgeProvider>,
  );
  expect(box.textContent).toBe("connecting ");
  await pass();
  expect(box.textContent).toBe("online a");
  const before = log.length;
  await act(async () => {
    void session.request(12, {});
    await world.clock.run(100);
  });
  expect(log.length).toBe(before);
  await act(async () => world.cut());
  expect(box.textContent).toBe("offline a");
});

it("opens one session in strict mode, and closes it when it goes", async () => {
  const page = (
    <StrictMode>
      <SyncBridgeProvider options={options}>
        <Mood />
        <Around />
      </SyncBridgeProvider>
    </StrictMode>
  );
  await show(page);
  await pass();
  expect(made.length).toBe(1);
  expect(box.textContent).toBe("noneonline a");
  await show(null);
  await wait(150);
  await pass();
  expect(made[0]!.status).toBe("closed");
});

it("opens another session for another device, with the same page", async () => {
  const page = (deviceId: string) => (
    <SyncBridgeProvider options={{ ...options, deviceId }}>
      <Around />
    </SyncBridgeProvider>
  );
  await show(page("a"));
  await show(page("a"));
  await pass();
  expect(made.length).toBe(1);
  await show(page("b"));
  await wait(150);
  await pass();
  expect(made.map((s) => s.status)).toEqual(["closed", "online"]);
  expect(box.textContent).toBe("online b");
});

it("takes a session up again that has something to send", async () => {
  const page = (
    <SyncBridgeProvider options={options}>
      <Mood />
    </SyncBridgeProvider>
  );
  await show(page);
  await pass();
  await act(async () => {
    world.down = true;
    world.cut();
    made[0]!.set("mood", "calm");
  });
  await show(null);
  await wait(150);
  await show(page);
  world.down = false;
  await pass(5_000);
  expect(made.map((s) => s.status)).toEqual(["online"]);
  expect([box.textContent, world.server.state.get("mood")]).toEqual(["calm", "calm"]);
});

it("opens a session of its own for another token", async () => {
  const page = (token: string) => (
    <SyncBridgeProvider options={{ ...options, token }}>
      <Mood />
    </SyncBridgeProvider>
  );
  await show(page("one user's"));
  await pass();
  await show(null);
  await show(page("another's"));
  await pass();
  expect(made.map((s) => s.hello.token)).toEqual(["one user's", "another's"]);
});

it("renders on a server, without a connection", () => {
  const html = renderToString(
    <SyncBridgeProvider options={options}>
      <Mood />
      <Around />
    </SyncBridgeProvider>,
  );
  expect(html).toBe("<p>none</p><i>connecting<!-- --> </i>");
  expect(made.length).toBe(0);
});

it("gives the session itself", async () => {
  const session = world.session();
  function Button() {
    const mine = useSession<{ mood: string }>();
    return <button type="button" onClick={() => mine?.set("mood", "pressed")} />;
  }
  await show(
    <SyncBridgeProvider session={session}>
      <Button />
      <Mood />
    </SyncBridgeProvider>,
  );
  await act(async () => box.querySelector("button")!.click());
  expect(box.textContent).toBe("pressed");
});

it("follows a call", async () => {
  const session = world.session();
  const heard = world.server.receive.bind(world.server);
  const asked: unknown[] = [];
  const state = { type: "voice_state", channelId: "c", sessionId: "s", phase: "active" };
  world.server.receive = (peer, data) => {
    const { type, channelId, correlation_id } = JSON.parse(data);
    if (typeof type !== "string") return heard(peer, data);
    asked.push([type, channelId]);
    peer.send({ ...state, participants: [{ userId: "u" }, { userId: "v" }], correlation_id });
  };
  function Call() {
    const call = useCall("c");
    const people = call?.participants.map(
      (p) => p.userId + (p.speaking ? "!" : p.muted ? "-" : ""),
    );
    return <p>{people?.join(" ") ?? "no call"}</p>;
  }
  const page = (
    <SyncBridgeProvider session={session}>
      <Call />
    </SyncBridgeProvider>
  );
  await show(page);
  expect(box.textContent).toBe("no call");
  await pass();
  expect(box.textContent).toBe("u v");
  const tell = (message: object) =>
    act(async () => {
      for (const peer of world.server.peers) peer.send({ channelId: "c", ...message });
      await world.clock.run(100);
    });
  await tell({ type: "speaking_update", userId: "v", isSpeaking: true });
  expect(box.textContent).toBe("u v!");
  await tell({ type: "voice_state_update", userId: "v", state: "muted" });
  expect(box.textContent).toBe("u v-");
  await tell({ type: "voice_state_update", userId: "u", state: "disconnected", reason: "left" });
  expect(box.textContent).toBe("v-");
  await act(async () => world.cut());
  await pass(3_000);
  expect(asked).toEqual([
    ["voice_watch", "c"],
    ["voice_watch", "c"],
  ]);
  await tell({ type: "session_ended", sessionId: "s", reason: "ended" });
  expect(box.textContent).toBe("no call");
  await show(null);
  await pass();
  expect(asked.at(-1)).toEqual(["voice_unwatch", "c"]);
});
