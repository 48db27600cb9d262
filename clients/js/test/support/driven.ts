/** A browser in a process of its own, and commands for it over a WebSocket. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kill } from "node:process";
import { NodeSocket } from "../../src/node/socket";

const START = 90_000;
const ANSWER = 60_000;

/** An answer of WebDriver BiDi, or of Chromium's DevTools. */
interface Answer {
  id?: number;
  result?: unknown;
  error?: unknown;
  message?: string;
}

export interface Program {
  program: string;
  flags: (profile: string) => string[];
  /** In what the program says of itself: the address of its WebSocket. */
  address: RegExp;
  path?: string;
  /** Before it starts. */
  prepare?: (profile: string) => void;
}

export class Driven {
  #id = 0;
  readonly #waiting = new Map<number, (answer: Answer) => void>();

  private constructor(
    private readonly profile: string,
    readonly process: ChildProcess,
    private readonly socket: NodeSocket,
  ) {
    socket.onmessage = ({ data }: { data: string }) => {
      const answer = JSON.parse(data) as Answer;
      this.#waiting.get(answer.id ?? 0)?.(answer);
    };
  }

  static async launch({ program, flags, address, path, prepare }: Program): Promise<Driven> {
    const profile = mkdtempSync(join(tmpdir(), "browser-"));
    prepare?.(profile);
    const process = spawn(program, flags(profile), { detached: true });
    const socket = new NodeSocket((await said(process, address)) + (path ?? ""), "");
    await new Promise<void>((done, failed) => {
      socket.onopen = () => done();
      socket.onclose = () => failed(new Error(`${program} cannot be driven`));
    });
    return new Driven(profile, process, socket);
  }

  /** One command and its result. `sessionId`: a page of Chromium. */
  async send<T>(method: string, params: object, sessionId?: string): Promise<T> {
    const id = ++this.#id;
    const answer = await new Promise<Answer>((done, failed) => {
      const late = setTimeout(() => failed(new Error(`${method}: no answer`)), ANSWER);
      this.#waiting.set(id, (it) => {
        clearTimeout(late);
        done(it);
      });
      this.socket.send(JSON.stringify({ id, method, params, sessionId }));
    }).finally(() => this.#waiting.delete(id));
    const { error, message = "", result } = answer;
    if (error) throw new Error(`${method}: ${JSON.stringify(error)} ${message}`);
    return result as T;
  }

  /** End the browser with its helpers, which would go on writing to the profile. */
  async close(): Promise<void> {
    const gone = new Promise((done) => this.process.once("exit", done));
    if (this.process.pid) kill(-this.process.pid, "SIGKILL");
    await gone;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

/** What the first match in the output of a process is. */
function said(process: ChildProcess, what: RegExp): Promise<string> {
  return new Promise((done, failed) => {
    let all = "";
    const late = setTimeout(() => failed(new Error(`no ${what}: ${all}`)), START);
    process.once("error", failed);
    process.once("exit", () => failed(new Error(`it has ended: ${all}`)));
    for (const out of [process.stdout, process.stderr])
      out!.on("data", (data) => {
        all += data;
        const found = what.exec(all)?.[1];
        if (!found) return;
        clearTimeout(late);
        done(found);
      });
  });
}
