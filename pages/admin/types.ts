/** What the server answers, as far as the dashboard reads it. Times are RFC 3339 unless noted. */

export interface Me {
  user_id: string;
  role: "admin" | "viewer";
  expires_at: string;
  version: string;
  node: string;
  development: boolean;
  voice: boolean;
  issues_tokens: boolean;
  websocket: string;
}

export interface Redis {
  kind: string;
  version: string;
  role: string;
  replicas: number;
  durability: string;
  reason: string;
  queued: number;
}

export interface NodeFigures {
  node: string;
  pid: number;
  started_at: number;
  fresh: boolean;
  draining: boolean;
  open_connections: number;
  sessions: number;
  queued_bytes: number;
  messages_in: number;
  frames_out: number;
  writes: number;
  redis: Redis | null;
}

export interface Latency {
  bounds: number[];
  commits: number[];
  redis: number[];
  ticks: number[];
}

/** `at`: Unix ms in ADMIN_UPDATE, else a text. */
export interface Metrics {
  at: number | string;
  complete: boolean;
  sessions: { active: number; exact: boolean; devices: number; writes_total: number };
  connections: {
    open: number;
    authenticated: number;
    users: number;
    queued_bytes: number;
    messages_in_total: number;
    frames_out_total: number;
    bytes_in_total: number;
    bytes_out_total: number;
  };
  snapshots: { stored: number; bytes: number; exact: boolean; damaged: number } | null;
  nodes: NodeFigures[];
  latency: Latency;
  trouble: {
    errors: Record<string, number>;
    closes: Record<string, number>;
    auth: Record<string, number>;
  };
}

export interface VoiceFigures {
  enabled: boolean;
  provider: string;
  channels: number;
  participants: number;
  recording: number;
  failing: number;
  webhooksWaiting: number;
}

export interface SessionRow {
  session_id: string;
  user_id: string;
  version: number;
  bytes: number;
  updated_at: string | null;
  devices: number;
  devices_online: number;
}

export interface KeyRow {
  key: string;
  value: string;
  version: number;
  writer: string;
  candidates: string[];
}

export interface DeviceRow {
  device_id: string;
  device_type: string;
  device_name: string;
  os_version: string;
  app_version: string;
  online: boolean;
  node: string;
  connected_at: string;
  last_seen: string;
  in_call: string;
  waddle_id: string;
}

export interface Inspected {
  session_id: string;
  user_id: string;
  version: number;
  epoch: string;
  lineage: string;
  writer: string;
  app_version: string;
  bytes: number;
  created_at: string | null;
  updated_at: string | null;
  expires_at: string | null;
  keys: KeyRow[];
  devices: DeviceRow[];
}

export interface ConnectionRow {
  node: string;
  connection_id: number;
  session_id: string;
  user_id: string;
  device_id: string;
  client: string;
}

export interface ChannelRow {
  channelId: string;
  waddleId: string;
  sessionId: string;
  state: string;
  participants: number;
  doubtful: number;
  createdAt: string;
  lastSyncAt: string | null;
  status: string;
  reason: string;
}

export interface Connection {
  connectionId: string;
  seenAt: string;
  seenBy: string;
  shownAt: string;
  leaseUntil: string | null;
  doubts: { source: string; at: string }[];
}

export interface Participant {
  userId: string;
  joinedAt: string;
  state: string;
  muted: boolean;
  video: boolean;
  evidence: {
    source: string;
    ref: string;
    lastConfirmedAt: string;
    lastConfirmedBy: string;
    deviceId: string;
    connections: Connection[];
  } | null;
}

export interface Channel {
  channelId: string;
  waddleId: string;
  session: {
    sessionId: string;
    generation: number;
    state: string;
    createdAt: string;
    recording: string;
    lastError: string;
  } | null;
  participants: Participant[];
  metrics: { peakParticipants: number; duration: number; migrations: number } | null;
  health: { score: number; status: string; checks: Record<string, boolean>; reason: string };
  migration: { reason: string; result: string; beganAt: string } | null;
}

export interface TimelineEntry {
  at: string;
  saidAt: string | null;
  source: string;
  ref: string;
  what: string;
  userId: string;
  connectionId: string;
  reason: string;
  wrongMs: number;
  count: number;
}

/** Whoever has `url` can fetch it; it is empty where only the text is kept. */
export interface Recording {
  recordingId: string;
  sessionId: string;
  readyAt: string;
  url: string;
  duration: number | null;
  kind: string;
  expiresAt: string | null;
}

export interface UserCall {
  channelId: string;
  waddleId: string;
  state: "connected" | "moving" | "left";
  joinedAt: string | null;
  lastAt: string;
  deviceId: string;
}

export interface Letter {
  entry: string;
  kind: string;
  record: string;
  delivery_id: string;
  reason: string;
  received_at: string;
  failed_at: string;
  events: { type: string; session_id: string }[];
  size: number;
  body: string;
}

export interface Revocation {
  kind: string;
  value: string;
  user_id: string;
  at: string;
}

export interface Setting {
  section: string;
  name: string;
  value: string;
  default: string;
  text: string;
  changed: boolean;
}

export interface Endpoint {
  id: string;
  url: string;
  kinds: string[];
  session_id: string;
  user_id: string;
  channel_id: string;
  waddle_id: string;
  values: boolean;
  description: string;
  batch_events: number;
  batch_ms: number;
  configured: boolean;
  enabled: boolean;
  disabled_reason: string;
  created_at: string;
  rotated_at: string | null;
  delivered: number;
  failed: number;
  dead: number;
  held: number;
  late_ms: number;
  delivered_at: string | null;
  failed_at: string | null;
  failing_since: string | null;
  last_error: string;
  secret?: string;
}

export interface EndpointLetter {
  entry: string;
  event_id: string;
  reason: string;
  failed_at: string;
  event: unknown;
}
