/** The messages of the protocol as the client reads and writes them. */
import { asked } from "./pacing";
import { fromText, isObject, type Json, type Numbers, toText } from "./values";

export type Kind = number | string;

/** The server sent something that is not a message of the protocol. */
export class ProtocolViolation extends Error {}

/** The bounds that the server tells; the defaults until it has. */
export const LIMITS = {
  message_bytes: 65_536,
  key_bytes: 256,
  changes: 256,
  presence_list: 64,
  ephemeral_keys: 16,
  ephemeral_bytes: 1_024,
  ephemeral_per_second: 20,
  messages_per_second: 50,
  message_burst: 100,
};
export type Limits = typeof LIMITS;

/** A JSON object whose members may be anything: each is what is expected, or as if it were not there. */
export class Fields {
  constructor(readonly fields: Readonly<Record<string, unknown>>) {}

  /** A text, empty when it is not there. */
  text(name: string): string {
    const value = this.fields[name];
    return typeof value === "string" ? value : "";
  }

  number(name: string): number | undefined {
    const value = this.fields[name];
    return typeof value === "number" ? value : undefined;
  }

  flag(name: string): boolean {
    return this.fields[name] === true;
  }

  object(name: string): Readonly<Record<string, Json>> {
    const value = this.fields[name];
    return isObject(value) ? value : {};
  }

  list(name: string): readonly unknown[] | undefined {
    const value = this.fields[name];
    return Array.isArray(value) ? value : undefined;
  }

  texts(name: string): string[] {
    return (this.list(name) ?? []).filter((item) => typeof item === "string");
  }

  records(name: string): Fields[] {
    return (this.list(name) ?? []).filter(isObject).map((item) => new Fields(item));
  }
}

/** A message; its fields are those of the payload, or all where the type is a name. */
export class Message extends Fields {
  constructor(
    readonly type: Kind,
    fields: Readonly<Record<string, unknown>>,
    readonly id?: string,
    readonly timestamp = 0,
  ) {
    super(fields);
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
    code: message.text("code") || "unknown",
    message: message.text("message"),
    retryable: message.flag("retryable"),
    retryAfter: asked(message.number("retry_after_ms") ?? 0),
    details: message.object("details"),
  };
}

/** @throws ProtocolViolation when the text is not a message */
export function read(data: string, numbers: Numbers): Message {
  const body = parsed(data, numbers);
  const whole = new Fields(isObject(body) ? body : {});
  const type = whole.number("type") ?? whole.text("type");
  if (type === "") throw new ProtocolViolation("no message type");
  return new Message(
    type,
    typeof type === "string" ? whole.fields : whole.object("payload"),
    whole.text("correlation_id") || undefined,
    whole.number("timestamp"),
  );
}

function parsed(data: string, numbers: Numbers): unknown {
  try {
    return fromText(data, numbers);
  } catch (error) {
    throw new ProtocolViolation(String(error));
  }
}

/** One message as text; one whose type is a name is flat. */
export function write(type: Kind, body: object, id?: string): string {
  const message = typeof type === "string" ? { type, ...body } : { type, payload: body };
  return toText(id === undefined ? message : { ...message, correlation_id: id });
}
