/** The media port over `@cloudflare/realtimekit` 2: `realtimekit((await import(…)).default)`. */
import { type MediaEvents, type MediaPort, VoiceError } from "./port";

/** RealtimeKit tells of speaking, never of its end. */
const DECAY = 800;

interface Source {
  on(event: string, listener: (event: never) => void): unknown;
}

interface Meeting {
  readonly self: Source & {
    readonly peerId?: string;
    readonly id?: string;
    enableAudio(): Promise<void>;
    disableAudio(): Promise<void>;
  };
  readonly participants: Source;
  readonly meta: Source;
  join(): Promise<void>;
  leave(): Promise<void>;
}

/** As much of the library as is used. */
export interface RealtimeKit {
  init(options: {
    authToken: string;
    defaults: { audio: boolean; video: boolean };
  }): Promise<Meeting>;
}

export function realtimekit(client: RealtimeKit): MediaPort {
  return {
    async join({ token }, muted, events) {
      const defaults = { audio: !muted, video: false };
      const meeting = await client.init({ authToken: token, defaults }).catch(failed);
      listen(meeting, events);
      await meeting.join().catch(failed);
      const { self } = meeting;
      return {
        id: self.peerId ?? self.id ?? "",
        mute: (off) => (off ? self.disableAudio() : self.enableAudio()),
        unlockAudio: async () => {},
        leave: () => meeting.leave(),
      };
    },
  };
}

function failed(error: unknown): never {
  const code = String((error as { code?: unknown } | null)?.code ?? "").padStart(4, "0");
  const kind =
    code === "0004" ? "token_expired" : code === "0014" ? "device_error" : "network_error";
  throw new VoiceError(kind, String((error as Error)?.message ?? error), error);
}

function listen({ self, participants, meta }: Meeting, events: MediaEvents): void {
  let quiet: ReturnType<typeof setTimeout> | undefined;
  const me = () => self.peerId ?? self.id;
  participants.on("activeSpeaker", ({ peerId }: { peerId: string }) => {
    if (peerId !== me()) return;
    if (!quiet) events.speaking(true);
    clearTimeout(quiet);
    quiet = setTimeout(() => {
      quiet = undefined;
      events.speaking(false);
    }, DECAY);
  });
  self.on("audioUpdate", ({ audioEnabled }: { audioEnabled: boolean }) =>
    events.muted(!audioEnabled),
  );
  self.on("autoplayError", () => events.playbackBlocked());
  self.on("roomLeft", ({ state }: { state: string }) => {
    clearTimeout(quiet);
    events.state("lost", state);
  });
  const moved = ({ state }: { state: string }) => {
    if (state === "connected" || state === "reconnecting") events.state(state, "");
    if (state === "failed") events.state("lost", state);
  };
  meta.on("socketConnectionUpdate", moved);
  meta.on("mediaConnectionUpdate", moved);
}
