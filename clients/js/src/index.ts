/**
 * Live, shared state of a session on all devices of a user.
 *
 *     const session = await connect({ url: "wss://sync.example.com/ws", token, deviceId: "phone" });
 *     session.subscribe("volume", (volume) => show(volume));
 *     session.set("volume", 7);
 */
import { environment } from "./core/env";
import { type AnyState, type Options, Session } from "./core/session";

export * from "./core/api";

/** A session that begins to connect at once; nothing is waited for. */
export function createSession<S extends object = AnyState>(options: Options): Session<S> {
  return new Session<S>(
    options,
    environment((url, protocol) => new WebSocket(url, protocol)),
  );
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
