/** The media port over `livekit-client` 2: `livekit(await import("livekit-client"), url)`. */
import {
  type Connection,
  deviceError,
  type Grant,
  type MediaEvents,
  type MediaPort,
  VoiceError,
} from "./port";

interface Room {
  readonly localParticipant: {
    readonly sid: string;
    setMicrophoneEnabled(enabled: boolean): Promise<unknown>;
  };
  on(event: string, listener: (...args: never[]) => void): unknown;
  connect(url: string, token: string): Promise<void>;
  disconnect(): Promise<void>;
  startAudio(): Promise<void>;
}

/** As much of the library as is used. */
export interface LiveKit {
  readonly Room: new (options?: object) => Room;
}

export function livekit({ Room }: LiveKit, url?: string): MediaPort {
  return {
    async join(grant, muted, events) {
      const room = new Room({ stopLocalTrackOnUnpublish: true });
      listen(room, events);
      await room.connect(address(grant, url), grant.token).catch((error) => {
        throw new VoiceError(
          /token|401/i.test(String(error)) ? "token_expired" : "network_error",
          String(error),
          error,
        );
      });
      await room.localParticipant.setMicrophoneEnabled(!muted).catch(async (error) => {
        await room.disconnect();
        throw deviceError(error);
      });
      return connection(room);
    },
  };
}

function address(grant: Grant, url: string | undefined): string {
  const found = grant.url ?? url;
  if (!found) throw new TypeError("livekit needs the address of the media server");
  return found;
}

function connection(room: Room): Connection {
  return {
    id: room.localParticipant.sid,
    mute: async (muted) => void (await room.localParticipant.setMicrophoneEnabled(!muted)),
    unlockAudio: () => room.startAudio(),
    leave: () => room.disconnect(),
  };
}

/** The names of events are those of `RoomEvent`. */
function listen(room: Room, events: MediaEvents): void {
  const mine = (someone: { sid?: string }) => someone.sid === room.localParticipant.sid;
  room.on("reconnecting", () => events.state("reconnecting", ""));
  room.on("signalReconnecting", () => events.state("reconnecting", ""));
  room.on("reconnected", () => events.state("connected", ""));
  room.on("disconnected", (reason: unknown) => events.state("lost", `disconnected: ${reason}`));
  room.on("activeSpeakersChanged", (all: { sid?: string }[]) => events.speaking(all.some(mine)));
  room.on(
    "trackMuted",
    (_track: unknown, who: { sid?: string }) => mine(who) && events.muted(true),
  );
  room.on(
    "trackUnmuted",
    (_track: unknown, who: { sid?: string }) => mine(who) && events.muted(false),
  );
  room.on(
    "audioPlaybackChanged",
    (playing: unknown) => playing === false && events.playbackBlocked(),
  );
}
