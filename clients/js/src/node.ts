/** The package in Node: the same, with a WebSocket of its own where Node has none (before 22). */
import { environment } from "./core/env";
import { type AnyState, type Options, Session } from "./core/session";
import { NodeSocket } from "./node/socket";

export * from "./core/api";

const open = (url: string, protocol: string) =>
  typeof WebSocket === "function" ? new WebSocket(url, protocol) : new NodeSocket(url, protocol);

/** A session that begins to connect at once; nothing is waited for. */
export function createSession<S extends object = AnyState>(options: Options): Session<S> {
  return new Session<S>(options, environment(open));
}

/**
 * A session that is online, or has the state that was kept.
 *
 * @throws ConnectFailed when that takes longer than `startTimeout`
 * @throws SessionClosed when the server refuses for good
 */
export async function connect<S extends object = AnyState>(options: Options): Promise<Session<S>> {
  return createSession<S>(options).started();
}
