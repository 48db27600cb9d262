/** A user's voice in a channel, over LiveKit, RealtimeKit, or a media port of the program's own. */
export { type Call, Calls, callsOf, type Participant, type VoiceSession } from "./calls";
export { VoiceClient, type VoiceEvents, type VoiceHandlers, type VoiceOptions } from "./client";
export { type LiveKit, livekit } from "./livekit";
export * from "./port";
export { type RealtimeKit, realtimekit } from "./realtimekit";
