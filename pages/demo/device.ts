/** One device of the demo: its session, its call, and what it tells about itself. */
import { createSession, type Session } from "@syncbridge/client";
import { conflicts } from "@syncbridge/client/conflicts";
import { type Call, callsOf, VoiceClient } from "@syncbridge/client/voice";
import { Changing } from "../shared/changes";
import { Line } from "./line";
import { standIn } from "./media";
import { type Room, settle, shown } from "./room";
import { StreamSound } from "./sound";
import { channelOf, SERVER, tokenFor, WADDLE } from "./tokens";
import type { Traffic } from "./traffic";

export const USER = "demo";
export type CallState = "out" | "joining" | "connected" | "reconnecting" | "lost";

/** A conflict that was settled. */
export interface Merge {
  readonly key: string;
  readonly mine: string;
  readonly theirs: string;
  readonly written: string;
}

/** Where the page and its devices are. */
export interface Place {
  readonly sessionId: string;
  /** Of the stand-in voice provider; empty: there is none. */
  readonly media: string;
  readonly traffic: Traffic;
}

export class Device extends Changing {
  readonly line: Line;
  readonly session: Session<Room>;
  readonly voice: VoiceClient;
  readonly sound = new StreamSound();
  readonly channel: string;
  /** What happened last, in a sentence. */
  story = "Connecting…";
  merges: readonly Merge[] = [];
  callState: CallState = "out";
  callError = "";

  constructor(
    readonly name: string,
    readonly id: string,
    readonly type: string,
    { sessionId, media, traffic }: Place,
  ) {
    super();
    this.channel = channelOf(sessionId);
    this.line = new Line((sent, text) => {
      traffic.add(name, sent, text);
      this.changed();
    });
    const token = () => this.#token();
    this.session = createSession<Room>({
      url: `${SERVER}/ws`,
      token,
      sessionId,
      deviceId: id,
      deviceName: name,
      deviceType: type,
      conflict: conflicts(settle),
      store: this.line,
    });
    this.voice = new VoiceClient({
      session: this.session as unknown as Session,
      media: standIn(media, this.line, this.sound),
      url: SERVER,
      token,
      microphone: () => this.sound.open(),
    });
    this.#watch();
  }

  get online(): boolean {
    return this.session.status === "online";
  }

  /** The call of the channel, as the server tells it. */
  get call(): Call | undefined {
    return callsOf(this.session as unknown as Session).get(this.channel);
  }

  /** Cut the network, or bring it back. */
  cut(cut: boolean): void {
    this.line.switch(cut);
    if (cut) this.#say("Cut off. What is changed here waits in a queue.");
  }

  forget(merge: Merge): void {
    this.merges = this.merges.filter((one) => one !== merge);
    this.changed();
  }

  async join(): Promise<void> {
    this.#call("joining");
    try {
      await this.voice.joinVoiceChannel(WADDLE, this.channel);
    } catch (error) {
      this.sound.close();
      this.#call("out", explained(error as Error & { code?: string }));
    }
  }

  async leave(): Promise<void> {
    await this.voice.leaveVoiceChannel();
  }

  async mute(): Promise<void> {
    await this.voice.toggleMute();
  }

  async #token(): Promise<string> {
    if (this.line.cut) throw new Error("there is no network");
    return tokenFor(USER, "Demo", this.channel);
  }

  #watch(): void {
    const { session, voice } = this;
    const calls = callsOf(session as unknown as Session);
    calls.watch(this.channel, WADDLE);
    calls.on(this.changed);
    session.subscribe(this.changed);
    for (const name of ["status", "devices", "deviceJoined", "deviceLeft"] as const)
      session.on(name, this.changed);
    session.on("connected", ({ resumed, version }) =>
      this.#say(resumed ? `Back, and resumed at version ${version}.` : "Connected."),
    );
    session.on("disconnected", () => this.line.cut || this.#say("No connection; trying again."));
    session.on("closed", ({ reason }) => this.#say(`Ended: ${reason}. Reload the page.`));
    session.on("refused", ({ error }) => this.#say(`Refused: ${error.message}`));
    session.on("tokenFailed", ({ message }) => this.#say(`No token: ${message}`));
    session.on("reset", () => this.#say("The server began anew; this is its state."));
    session.on("conflict", ({ resolutions }) => {
      const told = resolutions.map(({ key, mine, theirs, written }) => ({
        key,
        mine: shown(mine),
        theirs: shown(theirs),
        written: shown(written),
      }));
      this.merges = [...told, ...this.merges].slice(0, 3);
      this.changed();
    });
    voice.on("state", (state) => this.#call(state ?? "out"));
    voice.on("muted", this.changed);
    voice.on("left", ({ reason }) => {
      this.sound.close();
      this.#call("out", `Out of the call: ${reason}.`);
    });
  }

  #say(story: string): void {
    this.story = story;
    this.changed();
  }

  #call(state: CallState, error = ""): void {
    this.callState = state;
    this.callError = error;
    this.changed();
  }
}

function explained({ code, message }: { code?: string; message: string }): string {
  if (code === "permission_denied") return "The browser was not allowed the microphone.";
  if (code === "device_error") return "There is no microphone; try the test tone.";
  return message || String(code);
}
