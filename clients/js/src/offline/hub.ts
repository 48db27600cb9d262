/** The tab that leads, towards those that follow: the server's side of the protocol. */
import { changesOf } from "../core/dialogue";
import type { InvalidUpdate } from "../core/errors";
import type { Status } from "../core/events";
import * as T from "../core/kinds";
import { become, type Edit, type Edits, type Operation } from "../core/operations";
import type { Device } from "../core/presence";
import { Pending } from "../core/queue";
import type { Keeping } from "../core/store";
import { type Json, MISSING, type Value } from "../core/values";
import { type Kind, type Message, read, write } from "../core/wire";
import { type Disk, whole } from "./disk";
import type { Word } from "./sockets";

const HEARTBEAT = 25_000;
/** Seconds; a tab that follows needs no token. */
const FOREVER = 1e9;
const FORBIDDEN = 4003;

type Say = (word: Omit<Word, "from">) => void;

export class Hub {
  readonly #followers = new Set<string>();

  constructor(
    private readonly keeping: Keeping,
    private readonly disk: Disk,
    private readonly say: Say,
  ) {}

  // From a follower

  hear({ from, kind, data }: Word): void {
    if (!/^(state|stored|say|shut)$/.test(kind)) return;
    this.say({ kind: "heard", to: from });
    const answer = (it: unknown) => this.say({ kind: "answer", to: from, data: [kind, it] });
    const { replica } = this.keeping.dialogue;
    if (kind === "shut") this.#followers.delete(from);
    else if (kind === "state") answer({ ...whole(replica), known: replica.known });
    else if (kind === "stored") void this.disk.stored().then(answer);
    else this.#message(from, data as string);
  }

  #message(from: string, text: string): void {
    const { dialogue } = this.keeping;
    const message = this.#read(text);
    const { type, id } = message;
    if (type === T.AUTH) return this.#auth(from, message);
    if (type === T.STATE_UPDATE) return this.#update(from, message);
    if (type === T.HEARTBEAT) return this.#tell(T.HEARTBEAT_ACK, dialogue.replica.at, id, from);
    if (type === T.DEVICE_LIST && message.fields.me) this.#say(from, message);
    else if (dialogue.pass(text)) void 0;
    else if (type === T.SNAPSHOT_REQUEST) this.#tell(T.SNAPSHOT_RESPONSE, this.#state(), id, from);
    else this.#refuse(from, id, "disconnected", "the server is not reached", true);
    this.keeping.link.wake();
  }

  /** Each tab's values fit, but those of all together may not. */
  #say(from: string, message: Message): void {
    try {
      this.keeping.dialogue.say(changesOf(message.object("me")));
    } catch (error) {
      const { code, message } = error as InvalidUpdate;
      this.#refuse(from, undefined, code, message, false);
    }
  }

  #auth(from: string, message: Message): void {
    const { hello, status } = this.keeping;
    const session = message.text("session_id") || undefined;
    if (message.text("device_id") !== hello.deviceId || session !== hello.sessionId)
      return this.#shut(FORBIDDEN, "another device or session uses this storage", from);
    const token = message.text("token");
    if (token) void this.keeping.authenticate(token).catch(() => {});
    this.#followers.add(from);
    this.say({ kind: "status", to: from, data: status });
    this.#tell(T.AUTH_SUCCESS, this.#welcome(), message.id, from);
  }

  #welcome(): object {
    const { welcome, limits, presence } = this.keeping.dialogue;
    return {
      session_id: welcome?.sessionId,
      user_id: welcome?.userId,
      device_id: this.keeping.hello.deviceId,
      role: welcome?.role,
      heartbeat_interval_ms: HEARTBEAT,
      token_expires_at: FOREVER,
      limits: { ...limits, messages_per_second: 0 },
      devices: presence.list.map(entry),
      devices_total: presence.total,
      ...this.#state(),
    };
  }

  #state(): object {
    const { at, server } = this.keeping.dialogue.replica;
    return { ...at, state_data: Object.fromEntries(server) };
  }

  #update(from: string, message: Message): void {
    const { id = "" } = message;
    const { dialogue, link } = this.keeping;
    const { replica } = dialogue;
    if (this.#known(id)) return;
    if (this.disk.outcome(id)) return this.#outcome(id, from);
    const base = message.number("base_version");
    const guarded = base !== undefined && dialogue.bounds.conflict !== undefined;
    if (guarded && base !== replica.at.version)
      return this.#refuse(from, id, "behind", "the state has changed", true);
    try {
      const pending = new Pending(id, editsOf(message), guarded);
      const replaces = message.text("replaces");
      this.keeping.adopt(this.#add(pending, dialogue.limits.message_bytes, replaces));
      link.wake();
    } catch (error) {
      const { code, message, retryable } = error as InvalidUpdate;
      this.#refuse(from, id, code, message, retryable);
    }
  }

  /** A newer value of a key takes the place of one that waits, whoever made it. */
  #add(pending: Pending, maxMessage: number, replaces: string): ReadonlySet<string> {
    const { replica } = this.keeping.dialogue;
    const waiting = replica.queue.replaceable(pending.edits, pending.guarded);
    if (waiting) {
      replica.queue.replace(waiting, pending.edits, maxMessage);
      waiting.aliases = [...waiting.aliases.filter((id) => id !== replaces), pending.id];
    } else replica.queue.add(pending, maxMessage);
    return replica.show(pending.edits.keys());
  }

  #known(id: string): boolean {
    const { queue } = this.keeping.dialogue.replica;
    return queue.get(id) !== undefined || [...queue].some((p) => p.aliases.includes(id));
  }

  // To the followers

  /** An update is done, or refused for good. */
  finished(pending: Pending): void {
    for (const id of [pending.id, ...pending.aliases]) this.#outcome(id);
  }

  #outcome(id: string, to?: string): void {
    const { version, code, message } = this.disk.outcome(id)!;
    if (code !== undefined) return this.#refuse(to, id, code, message ?? "", false);
    const { dialogue, hello } = this.keeping;
    const at = { ...dialogue.replica.at, version, prev_version: version };
    // Without a device it would be a difference, after which everything is sent again.
    const body = { ...at, device_id: hello.deviceId, changes: {}, deleted_keys: [] };
    this.#tell(T.STATE_UPDATE, body, id, to);
  }

  moved(data: Status): void {
    this.say({ kind: "status", data });
  }

  /** The session has ended, for all. */
  close(code: number, reason: string): void {
    this.#shut(code, reason);
  }

  /** Whether the server says that this device has another connection. */
  isFence(data: string): boolean {
    if (!data.includes('"fenced"')) return false;
    const message = this.#read(data);
    return message.type === T.ERROR && message.text("code") === "fenced";
  }

  /** A message of the server, which the followers hear first, so that outcomes come behind it. */
  pass(data: string, deliver: () => void): void {
    if (!this.#followers.size) return deliver();
    const message = this.#read(data);
    const { type } = message;
    const own = type === T.ERROR && (message.id === undefined || this.#known(message.id));
    const ours = type === T.AUTH_SUCCESS || type === T.SNAPSHOT_RESPONSE;
    if (!ours && !own && type !== T.AUTH_FAILURE && type !== T.HEARTBEAT_ACK)
      this.say({ kind: "hear", data });
    deliver();
    if (ours) this.#refresh(message);
  }

  /** The leader has a new state; what it was made of is not for the followers. */
  #refresh(message: Message): void {
    const { reset, reason, devices, devices_total: total, me } = message.fields;
    this.#tell(T.SNAPSHOT_RESPONSE, { ...this.#state(), reset, reason }, message.id);
    if (devices) this.#tell(T.DEVICE_LIST, { devices, total, me });
  }

  #refuse(to: string | undefined, id: string | undefined, ...why: [string, string, boolean]): void {
    const [code, message, retryable] = why;
    this.#tell(T.ERROR, { code, message, retryable }, id, to);
  }

  #tell(type: Kind, body: object, id?: string, to?: string): void {
    if (this.#followers.size) this.say({ kind: "hear", to, data: write(type, body, id) });
  }

  #shut(code: number, reason: string, to?: string): void {
    this.say({ kind: "close", to, data: { code, reason } });
  }

  #read(text: string): Message {
    return read(text, this.keeping.dialogue.bounds.numbers);
  }
}

/** The edits of a STATE_UPDATE. */
function editsOf(message: Message): Edits {
  const { key, operation, value = MISSING, expected = MISSING } = message.fields;
  if (typeof key === "string")
    return new Map([
      [
        key,
        { operation: operation as Operation, value: value as Value, expected: expected as Value },
      ],
    ]);
  const edits = new Map<string, Edit>();
  for (const [name, it] of Object.entries(message.object("changes"))) edits.set(name, become(it));
  for (const name of message.texts("deleted_keys")) edits.set(name, become(MISSING));
  return edits;
}

function entry(device: Device): Record<string, Json | undefined> {
  return {
    device_id: device.deviceId,
    device_type: device.deviceType,
    device_name: device.deviceName,
    os_version: device.osVersion,
    status: device.status,
    connected_at: device.connectedAt,
    last_seen: device.lastSeen,
    in_call: device.inCall,
    waddle_id: device.waddleId,
    me: device.me,
  };
}
