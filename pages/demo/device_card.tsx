/** One device: its network, what waits, and what it shares. */
import { useChanges } from "../shared/changes";
import { Switch } from "../shared/switch";
import { Counter, List, Slider, Text } from "./controls";
import { Cursors } from "./cursors";
import type { Device, Merge } from "./device";
import { VoiceRoom } from "./voice_room";

export function DeviceCard({ device }: { device: Device }) {
  useChanges(device);
  const { name, type, line, session, story, merges } = device;
  return (
    <section class={`card device ${session.status}`} aria-label={name}>
      <header>
        <Icon type={type} />
        <h2>{name}</h2>
        <span class={`status ${session.status}`}>{line.cut ? "cut off" : session.status}</span>
        <Switch label="Network" on={!line.cut} onSwitch={(on) => device.cut(!on)} />
      </header>
      <div class="state">
        <p class="story" aria-live="polite">
          {story}
        </p>
        <Queue device={device} />
      </div>
      {merges.map((merge) => (
        <Merged key={merge} merge={merge} onClose={() => device.forget(merge)} />
      ))}
      <fieldset class="controls" disabled={session.status === "closed"}>
        <Slider device={device} />
        <Counter device={device} />
        <List device={device} />
        <Text device={device} />
        <Cursors device={device} />
        <VoiceRoom device={device} />
      </fieldset>
    </section>
  );
}

function Queue({ device: { session, online } }: { device: Device }) {
  const { pending, version, devices } = session;
  const keys = [...new Set(pending.flatMap((update) => update.keys))];
  const here = devices.filter(({ status }) => status === "online").length;
  return (
    <p class="queue">
      {!online && pending.length > 0 && (
        <span class="waiting">
          {pending.length} {pending.length === 1 ? "update waits" : "updates wait"}:{" "}
          {keys.join(", ")}
        </span>
      )}
      <span class="muted">
        {online && `${here} ${here === 1 ? "device" : "devices"}, `}version {version}
      </span>
    </p>
  );
}

function Merged({ merge, onClose }: { merge: Merge; onClose(): void }) {
  const { key, mine, theirs, written } = merge;
  return (
    <div class="merge" role="status">
      <p>
        <strong>{key}</strong> was changed on both sides.
      </p>
      <dl>
        <dt>here</dt>
        <dd>{mine}</dd>
        <dt>there</dt>
        <dd>{theirs}</dd>
        <dt>merged</dt>
        <dd>{written}</dd>
      </dl>
      <button type="button" class="button small" onClick={onClose} aria-label={`Close: ${key}`}>
        Close
      </button>
    </div>
  );
}

function Icon({ type }: { type: string }) {
  const frame =
    type === "mobile" ? (
      <rect x="7" y="2" width="10" height="20" rx="2.5" />
    ) : (
      <path d="M5 4.5h14a1 1 0 0 1 1 1V16H4V5.5a1 1 0 0 1 1-1zM2 19.5h20" />
    );
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      {frame}
    </svg>
  );
}
