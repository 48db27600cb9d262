/** What every entry of the package exports. */
export type { Guard, Resolution } from "./conflicts";
export type { Welcome } from "./dialogue";
export type { Env, SocketLike } from "./env";
export * from "./errors";
export type { Events, Listener, LostUpdate, Status } from "./events";
export type { Bounds, Hello } from "./options";
export type { Device } from "./presence";
export type { AnyState, Change, Options } from "./session";
export { Session, storedDeviceId } from "./session";
export type { Keeping, Store } from "./store";
export type { Token } from "./tokens";
export type { Update } from "./update";
export type { Json, Missing, Numbers } from "./values";
export { MISSING, RawNumber } from "./values";
export type { Failure } from "./wire";
