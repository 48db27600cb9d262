/**
 * Sessions in React: every hook shows what is true now, and renders again only when that changes.
 *
 * The state of a session is frozen and replaced where values change, so it is its own snapshot. On a
 * server no connection is opened, and every hook returns what a session without a state has.
 */
import {
  type AnyState,
  createSession,
  type Device,
  type Options,
  type Session,
  type Status,
} from "@syncbridge/client";
import {
  createContext,
  createElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { type Call, callsOf, type VoiceSession } from "../voice/calls";

export type { Call, Participant } from "../voice/calls";

/** Before a session is closed: strict mode, and a move in the tree, take it up again at once. */
const LINGER = 100;
/** What waits for an acknowledgement then has so long. */
const PATIENCE = 5_000;

const Current = createContext<Session<never> | undefined>(undefined);

export interface ProviderProps {
  /** A session of the program's, which it closes itself. */
  session?: VoiceSession | undefined;
  /**
   * Of a session that lives as long as the component. Another `url`, `deviceId` or `sessionId` makes
   * another session; other changes have no effect.
   */
  options?: Options | undefined;
  children?: ReactNode;
}

/** Gives a session to the hooks below it. */
export function SyncBridgeProvider({ session, options, children }: ProviderProps): ReactNode {
  const owned = useOwned(session ? undefined : options);
  return createElement(
    Current.Provider,
    { value: (session as Session<never> | undefined) ?? owned },
    children,
  );
}

interface Owned {
  readonly key: string;
  readonly options: Options;
  readonly session: Session<never>;
  closing?: ReturnType<typeof setTimeout>;
}

/** Sessions whose component has gone. */
const leaving = new Set<Owned>();

/** A session that is opened once the component is on the page. */
function useOwned(options: Options | undefined): Session<never> | undefined {
  const latest = useRef(options);
  latest.current = options;
  const [shown, show] = useState<Owned>();
  const key = options && JSON.stringify([options.url, options.deviceId, options.sessionId]);
  useEffect(() => {
    if (key === undefined) return;
    const owned = taken(key, latest.current!);
    show(owned);
    return () => leave(owned);
  }, [key]);
  return shown?.key === key ? shown?.session : undefined;
}

/** One that leaves, if it is the same: two of one device would take turns at the connection. */
function taken(key: string, options: Options): Owned {
  const fits = (it: Owned) =>
    it.key === key &&
    it.options.token === options.token &&
    it.options.store === options.store &&
    it.session.status !== "closed";
  const again = [...leaving].find(fits);
  if (!again) return { key, options, session: createSession<never>(options) };
  clearTimeout(again.closing);
  leaving.delete(again);
  return again;
}

/** Close a session once nothing waits, unless it is taken again. What is lost its handles tell. */
function leave(owned: Owned): void {
  leaving.add(owned);
  owned.closing = setTimeout(async () => {
    const { closing, session, options } = owned;
    await session.synced(options.closeTimeout ?? PATIENCE).catch(() => {});
    if (owned.closing !== closing || !leaving.delete(owned)) return;
    await session.close().catch(() => {});
  }, LINGER);
}

const nothing = () => () => {};

function useSnapshot<T>(
  session: Session<never> | undefined,
  subscribe: (session: Session<never>, changed: () => void) => () => void,
  read: (session: Session<never>) => T,
  empty: T,
): T {
  const listen = useCallback(
    (changed: () => void) => (session ? subscribe(session, changed) : nothing()),
    [session, subscribe],
  );
  return useSyncExternalStore(
    listen,
    () => (session ? read(session) : empty),
    () => empty,
  );
}

/** The session; undefined on a server and before the first effect. */
export function useSession<S extends object = AnyState>(): Session<S> | undefined {
  return useContext(Current) as Session<S> | undefined;
}

/** The value of a key; undefined when it is not there. */
export function useValue<T = AnyState[string]>(key: string): T | undefined {
  const subscribe = useCallback(
    (session: Session<never>, changed: () => void) => session.subscribe(key as never, changed),
    [key],
  );
  return useSnapshot<T | undefined>(
    useContext(Current),
    subscribe,
    (session) => session.get(key as never) as T | undefined,
    undefined,
  );
}

const NOBODY: readonly Device[] = Object.freeze([]);
const onDevices = (session: Session<never>, changed: () => void) => session.on("devices", changed);

/** The devices of the session, this one too. */
export function usePresence(): readonly Device[] {
  return useSnapshot(useContext(Current), onDevices, (session) => session.devices, NOBODY);
}

const onStatus = (session: Session<never>, changed: () => void) => session.on("status", changed);

/** Whether the session is online. */
export function useStatus(): Status {
  return useSnapshot<Status>(
    useContext(Current),
    onStatus,
    (session) => session.status,
    "connecting",
  );
}

/** The voice call of a channel, which is watched meanwhile; undefined when there is none. */
export function useCall(channelId: string, waddleId?: string): Call | undefined {
  const subscribe = useCallback(
    (session: Session<never>, changed: () => void) => {
      const calls = callsOf(session);
      const deaf = calls.on((told) => told === channelId && changed());
      const unwatch = calls.watch(channelId, waddleId);
      return () => {
        deaf();
        unwatch();
      };
    },
    [channelId, waddleId],
  );
  return useSnapshot<Call | undefined>(
    useContext(Current),
    subscribe,
    (session) => callsOf(session).get(channelId, waddleId),
    undefined,
  );
}
