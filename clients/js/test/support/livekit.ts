/** A real LiveKit server, built once by `scripts/livekit_server.sh`, and what ours is told of it. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { promisify } from "node:util";
import { freePort } from "./ports";
import { ended, ROOT, until } from "./server";

const KEY = "devkey";
const SECRET = "a-secret-of-livekit-of-32-bytes-or-more";
const BUILD = 1_800_000;

export class LiveKit {
  private constructor(
    private readonly child: ChildProcess,
    readonly port: number,
  ) {}

  /** The program; `undefined` where it is not here, and there is no Go to build it with. */
  static async program(): Promise<string | undefined> {
    const script = `${ROOT}/scripts/livekit_server.sh`;
    return promisify(execFile)("bash", [script], { timeout: BUILD }).then(
      ({ stdout }) => stdout.trim(),
      (error) => {
        if (error.code !== 3) throw error;
        return undefined;
      },
    );
  }

  /** `hook`: where its webhooks go, the port of a server on loopback. */
  static async start(program: string, hook: number): Promise<LiveKit> {
    const [port, tcp, udp] = [await freePort(), await freePort(), await freePort()];
    const config = {
      port,
      bind_addresses: ["127.0.0.1"],
      rtc: {
        tcp_port: tcp,
        udp_port: udp,
        use_external_ip: false,
        node_ip: "127.0.0.1",
        enable_loopback_candidate: true,
      },
      keys: { [KEY]: SECRET },
      logging: { level: "warn" },
      webhook: { api_key: KEY, urls: [`http://127.0.0.1:${hook}/rtk-webhook`] },
    };
    const args = ["--config-body", JSON.stringify(config)];
    const child = spawn(program, args, { stdio: "ignore" });
    const server = new LiveKit(child, port);
    const answers = () =>
      fetch(server.url).then(
        () => true,
        () => false,
      );
    await until(answers, 60_000, () => `LiveKit, exit code ${child.exitCode}`);
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get settings(): Record<string, string> {
    return {
      SYNCBRIDGE_VOICE_PROVIDER: "livekit",
      SYNCBRIDGE_LIVEKIT_URL: this.url,
      SYNCBRIDGE_LIVEKIT_API_KEY: KEY,
      SYNCBRIDGE_LIVEKIT_API_SECRET: SECRET,
    };
  }

  /** Identities in each room, by its name. */
  async rooms(): Promise<Record<string, string[]>> {
    const { rooms = [] } = await this.#ask<{ rooms?: { name: string }[] }>("ListRooms", {});
    const found: Record<string, string[]> = {};
    for (const { name: room } of rooms) {
      type Listed = { participants?: { identity: string }[] };
      const { participants = [] } = await this.#ask<Listed>("ListParticipants", { room });
      found[room] = participants.map(({ identity }) => identity);
    }
    return found;
  }

  close(): Promise<void> {
    return ended(this.child, "SIGKILL");
  }

  async #ask<T>(method: string, body: { room?: string }): Promise<T> {
    const video = { roomList: true, roomAdmin: true, room: body.room };
    const answer = await fetch(`${this.url}/twirp/livekit.RoomService/${method}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${signed(video)}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return answer.json();
  }
}

function signed(video: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 60;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iss: KEY, exp, video })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}
