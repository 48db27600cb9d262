/** The messages of the protocol as the client reads and writes them. */
import { fromText, isObject, type Json, type Numbers, toText } from "./values";

export const T = {
  HEARTBEAT: 1,
  HEARTBEAT_ACK: 2,
  SNAPSHOT_REQUEST: 3,
  SNAPSHOT_RESPONSE: 4,
  STATE_UPDATE: 5,
  ERROR: 6,
  AUTH: 7,
  AUTH_SUCCESS: 8,
  AUTH_FAILURE: 9,
  DEVICE_JOINED: 10,
  DEVICE_LEFT: 11,
  DEVICE_LIST: 12,
} as const;

export type Kind = number | string;
type Fields = Readonly<Record<string, unknown>>;

/** The server sent something that is not a message of the protocol. */
export class ProtocolViolation extends Error {}

/** The bounds that the server tells; the defaults until it has. */
export const LIMITS = {
  message_bytes: 65_536,
  key_bytes: 256,
  changes: 256,
  messages_per_second: 50,
  message_burst: 100,
};
export type Limits = typeof LIMITS;

/** A message. `payload` of one whose type is a name is the whole message. */
export class Message {
  constructor(
    readonly type: Kind,
    readonly payload: Fields,
    readonly id: string | undefined,
    readonly timestamp: number,
  ) {}

  text(name: string): string | undefined {
    const value = this.payload[name];
    return typeof value === "string" ? value : undefined;
  }

  number(name: string): number | undefined {
    const value = this.payload[name];
    return typeof value === "number" ? value : undefined;
  }

  /** A number that must be there. */
  needed(name: string): number {
    const value = this.number(name);
    if (value === undefined) throw new ProtocolViolation(`${this.type} without ${name}`);
    return value;
  }

  flag(name: string): boolean {
    return this.payload[name] === true;
  }

  object(name: string): Readonly<Record<string, Json>> {
    const value = this.payload[name];
    return isObject(value) ? value : {};
  }

  list(name: string): readonly unknown[] | undefined {
    const value = this.payload[name];
    return Array.isArray(value) ? value : undefined;
  }

  texts(name: string): string[] {
    return (this.list(name) ?? []).filter((item) => typeof item === "string");
  }

  records(name: string): Fields[] | undefined {
    return this.list(name)?.filter(isObject);
  }
}

/** ERROR and AUTH_FAILURE. `retryAfter`: milliseconds, 0 when the server named none. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  readonly retryAfter: number;
  readonly details: Readonly<Record<string, unknown>>;
}

export function failure(message: Message): Failure {
  return {
    code: message.text("code") ?? "unknown",
    message: message.text("message") ?? "",
    retryable: message.flag("retryable"),
    retryAfter: message.number("retry_after_ms") ?? 0,
    details: message.object("details"),
  };
}

/** @throws ProtocolViolation when the text is not a message */
export function read(data: string, numbers: Numbers): Message {
  let body: unknown;
  try {
    body = fromText(data, numbers);
  } catch (error) {
    throw new ProtocolViolation(String(error));
  }
  if (!isObject(body)) throw new ProtocolViolation("not an object");
  const { type, payload, correlation_id: id, timestamp } = body;
  if (typeof type !== "number" && typeof type !== "string")
    throw new ProtocolViolation("no message type");
  return new Message(
    type,
    typeof type === "string" ? body : isObject(payload) ? payload : {},
    typeof id === "string" ? id : undefined,
    typeof timestamp === "number" ? timestamp : 0,
  );
}

/** One message as text; one whose type is a name is flat. */
export function write(type: Kind, body: object, id?: string): string {
  const message = typeof type === "string" ? { type, ...body } : { type, payload: body };
  return toText(id === undefined ? message : { ...message, correlation_id: id });
}
