/** Another user, who comes into the voice room when asked and speaks at the press of a button. */
import { createSession, type Session } from "@syncbridge/client";
import { VoiceClient } from "@syncbridge/client/voice";
import { Changing } from "../shared/changes";
import { newUuid } from "../shared/ids";
import { Line } from "./line";
import { standIn } from "./media";
import { ButtonSound } from "./sound";
import { channelOf, SERVER, tokenFor, WADDLE } from "./tokens";

export const GUEST = "robin";
export const GUEST_NAME = "Robin";

export class Guest extends Changing {
  here = false;
  error = "";
  readonly sound = new ButtonSound();
  readonly #channel: string;
  #voice: VoiceClient | undefined;

  constructor(
    sessionId: string,
    private readonly media: string,
  ) {
    super();
    this.#channel = channelOf(sessionId);
  }

  async invite(): Promise<void> {
    this.error = "";
    this.#voice ??= this.#arrive();
    await this.#voice.joinVoiceChannel(WADDLE, this.#channel).catch((error: Error) => {
      this.error = error.message;
    });
    this.changed();
  }

  async sendAway(): Promise<void> {
    await this.#voice?.leaveVoiceChannel();
  }

  speak(now: boolean): void {
    this.sound.speak(now);
    this.changed();
  }

  /** With a session and a socket of its own. */
  #arrive(): VoiceClient {
    const token = () => tokenFor(GUEST, GUEST_NAME, this.#channel);
    const line = new Line(() => {});
    const deviceId = newUuid();
    const session: Session = createSession({
      url: `${SERVER}/ws`,
      token,
      sessionId: deviceId,
      deviceId,
      store: line,
    });
    const media = standIn(this.media, line, this.sound);
    const microphone = async () => {};
    const voice = new VoiceClient({ session, media, url: SERVER, token, microphone });
    voice.on("state", (state) => {
      this.here = state !== undefined;
      this.changed();
    });
    return voice;
  }
}
