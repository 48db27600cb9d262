/** What has travelled lately, in words. */
import { Changing } from "../shared/changes";

const KEPT = 120;
const SHOWN = 60;
const NAMES = [
  "UNKNOWN",
  "HEARTBEAT",
  "HEARTBEAT_ACK",
  "SNAPSHOT_REQUEST",
  "SNAPSHOT_RESPONSE",
  "STATE_UPDATE",
  "ERROR",
  "AUTH",
  "AUTH_SUCCESS",
  "AUTH_FAILURE",
  "DEVICE_JOINED",
  "DEVICE_LEFT",
  "DEVICE_LIST",
  "BROADCAST",
  "ADMIN_UPDATE",
];

type Body = Record<string, unknown>;

export interface Frame {
  readonly id: number;
  readonly at: Date;
  readonly device: string;
  readonly sent: boolean;
  readonly name: string;
  readonly detail: string;
  /** The message, without the token. */
  readonly text: string;
}

/** The last messages of all devices, the latest first. */
export class Traffic extends Changing {
  frames: readonly Frame[] = [];
  paused = false;
  total = 0;

  add(device: string, sent: boolean, text: string): void {
    this.total += 1;
    if (!this.paused) {
      const frame = { id: this.total, at: new Date(), device, sent, ...described(text, sent) };
      this.frames = [frame, ...this.frames].slice(0, KEPT);
    }
    this.changed();
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.changed();
  }

  clear(): void {
    this.frames = [];
    this.changed();
  }
}

/** A message in words. */
export function described(text: string, sent: boolean): Pick<Frame, "name" | "detail" | "text"> {
  const message = JSON.parse(text) as Body;
  const { type, payload } = message;
  if (typeof type === "string")
    return { name: type, detail: ofVoice(message), text: pretty(message) };
  const body = (payload ?? {}) as Body;
  const hidden = "token" in body ? { ...message, payload: { ...body, token: "…" } } : message;
  const name = NAMES[Number(type)] ?? String(type);
  return { name, detail: (DETAILS[name] ?? (() => ""))(body, sent), text: pretty(hidden) };
}

const DETAILS: Record<string, (body: Body, sent: boolean) => string> = {
  AUTH: (body) => (body.resume ? `resume at version ${(body.resume as Body).version}` : "new here"),
  AUTH_SUCCESS: (body) =>
    body.resumed
      ? `resumed, ${count(body.changes)} changed meanwhile`
      : `whole state, version ${body.version}`,
  STATE_UPDATE: ofUpdate,
  SNAPSHOT_RESPONSE: (body) => `version ${body.version}`,
  ERROR: (body) => `${body.code}`,
  AUTH_FAILURE: (body) => `${body.code}`,
  DEVICE_JOINED: (body) => `${body.device_name ?? body.device_id}`,
  DEVICE_LEFT: (body) => `${body.reason}`,
  DEVICE_LIST: ({ me, devices }) => {
    if (me)
      return Object.entries(me as Body)
        .map(([name, now]) => `${name}: ${short(now)}`)
        .join(", ");
    return devices ? `${(devices as []).length} devices` : "";
  },
};

function ofUpdate(body: Body, sent: boolean): string {
  const { key, operation, value, changes, version } = body;
  const what = changes
    ? Object.entries(changes)
        .map(([name, now]) => `${name} = ${short(now)}`)
        .join(", ")
    : `${key} ${operation ?? "SET"} ${value === undefined ? "" : short(value)}`;
  return sent ? what : `version ${version}: ${what}`;
}

function ofVoice({
  userId,
  state,
  reason,
  muted,
  isSpeaking,
  updates,
  participants,
}: Body): string {
  if (Array.isArray(updates))
    return updates
      .map((one: Body) => `${one.userId} ${one.isSpeaking ? "speaks" : "is silent"}`)
      .join(", ");
  if (Array.isArray(participants)) return `${participants.length} there`;
  if (isSpeaking !== undefined) return `${userId ?? ""} ${isSpeaking ? "speaks" : "is silent"}`;
  const parts = [userId, state, reason, muted === true && "muted"];
  return parts.filter((part) => typeof part === "string").join(" ");
}

function count(changes: unknown): number {
  return Object.keys((changes ?? {}) as Body).length;
}

function short(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

function pretty(message: Body): string {
  return JSON.stringify(message, null, 1);
}
