/**
 * Waits and bounds that are no options; `options.ts` has those. Times in milliseconds. They are in a
 * file of their own as it is then that the build writes their values where they are used.
 */

// Connections.

/** Heartbeat intervals without a message after which the server is asked for a sign of life. */
export const SILENCE = 2;
/** Nothing heard for so long when a page becomes visible: the same. */
export const STALE = 5_000;
/** A last turn of the event loop, in which what has arrived is taken, before a peer is given up. */
export const GRACE = 50;
/** For the close frame after AUTH_FAILURE. */
export const GOODBYE = 1_000;
/** Between two attempts that an event of the page has asked for. */
export const HURRY = 2_000;
export const RENEWAL_RETRY = 5_000;
/** A token is not renewed more often, however short it lives. */
export const MIN_RENEWAL = 1_000;
/** Bytes that may wait in a socket. */
export const BUFFER = 262_144;
export const BUFFER_WAIT = 50;

// Updates and requests.

/** Before an update that was refused for a moment is sent again: doubled each time. */
export const RETRY_BASE = 250;
export const RETRY_CAP = 30_000;
/** Acknowledged updates that are remembered, in case the server loses them. */
export const REMEMBERED = 128;
/** After so many conflicts an update is refused: its keys are fought over. */
export const MAX_ROUNDS = 8;
/** Requests of ours, other than updates, that may wait for an answer. */
export const MAX_REQUESTS = 64;
/** Before a difference that was refused is asked for again. */
export const RETRY = 250;

// Tokens.

/** Before its end a token is renewed so early; a fifth of its life when that is less. */
export const MARGIN = 90_000;
