/** Numbers of the protocol. As constants of a file they cost nothing in what is published. */

// Message types.
export const HEARTBEAT = 1;
export const HEARTBEAT_ACK = 2;
export const SNAPSHOT_REQUEST = 3;
export const SNAPSHOT_RESPONSE = 4;
export const STATE_UPDATE = 5;
export const ERROR = 6;
export const AUTH = 7;
export const AUTH_SUCCESS = 8;
export const AUTH_FAILURE = 9;
export const DEVICE_JOINED = 10;
export const DEVICE_LEFT = 11;
export const DEVICE_LIST = 12;

// Close codes.
export const NORMAL = 1000;
export const ABNORMAL = 1006;
export const AUTH_FAILED = 4002;
export const TOKEN_EXPIRED = 4004;
