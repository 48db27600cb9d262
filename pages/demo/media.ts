/**
 * The media port over the stand-in provider of a development server.
 *
 * It carries no sound. Its connection is a WebSocket with the stand-in, which says who is in the call
 * and who speaks; a network that is cut takes it along.
 */
import type { Connection, Grant, MediaEvents, MediaPort } from "@syncbridge/client/voice";
import { VoiceError } from "@syncbridge/client/voice";
import type { Line } from "./line";
import type { Sound } from "./sound";

const CONNECT = 5_000;
const RETRY = 500;

/** `address`: of the stand-in; empty: there is none. */
export function standIn(address: string, line: Line, sound: Sound): MediaPort {
  return {
    async join(grant, muted, events) {
      if (!address)
        throw new VoiceError("unknown", "this server has a real voice provider, not the stand-in");
      const call = new Media(address, grant, line, sound, events);
      await call.connect();
      sound.mute(muted);
      return call;
    },
  };
}

class Media implements Connection {
  id = "";
  #socket: WebSocket | undefined;
  #release = () => {};
  #left = false;
  readonly #silence: () => void;

  constructor(
    private readonly address: string,
    private readonly grant: Grant,
    private readonly line: Line,
    private readonly sound: Sound,
    private readonly events: MediaEvents,
  ) {
    this.#silence = sound.listen((speaking) => this.#speak(speaking));
  }

  /** @throws VoiceError */
  async connect(): Promise<void> {
    if (this.line.cut) throw new VoiceError("network_error", "there is no network");
    const socket = new WebSocket(this.address);
    this.#socket = socket;
    this.#release = this.line.carries({ lose: () => this.#lose() });
    socket.onopen = () => socket.send(this.grant.token);
    this.id = await answer(socket).catch((error) => {
      this.#drop();
      throw error;
    });
    socket.onclose = () => this.#lose();
  }

  async mute(muted: boolean): Promise<void> {
    this.sound.mute(muted);
  }

  async unlockAudio(): Promise<void> {
    await this.sound.resume();
  }

  async leave(): Promise<void> {
    this.#left = true;
    this.#silence();
    this.#drop();
    this.sound.close();
  }

  #speak(speaking: boolean): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify({ speaking }));
    this.events.speaking(speaking);
  }

  #drop(): void {
    this.#release();
    if (this.#socket) this.#socket.onclose = null;
    this.#socket?.close();
    this.#socket = undefined;
  }

  #lose(): void {
    this.#drop();
    if (this.#left) return;
    this.events.state("reconnecting", "the connection is gone");
    void this.#again();
  }

  /** Until it is back, or the client has left: it waits for 20 seconds. */
  async #again(): Promise<void> {
    for (;;) {
      await new Promise((done) => setTimeout(done, RETRY));
      if (this.#left) return;
      const there = await this.connect().then(
        () => true,
        () => false,
      );
      if (!there) continue;
      if (this.#left) return this.#drop();
      return this.events.state("connected", "");
    }
  }
}

/** The connection's id, which is the first message. */
function answer(socket: WebSocket): Promise<string> {
  return new Promise((done, fail) => {
    const failed = () => fail(new VoiceError("network_error", "the stand-in does not answer"));
    const timer = setTimeout(failed, CONNECT);
    socket.onclose = () => {
      clearTimeout(timer);
      failed();
    };
    socket.onmessage = ({ data }) => {
      clearTimeout(timer);
      done(JSON.parse(data).connectionId);
    };
  });
}
