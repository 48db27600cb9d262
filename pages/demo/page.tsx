/** The whole page. */
import { useChanges } from "../shared/changes";
import type { Device } from "./device";
import { DeviceCard } from "./device_card";
import type { Guest } from "./guest";
import { GUEST_NAME } from "./guest";
import type { Traffic } from "./traffic";
import { TrafficCard } from "./traffic_card";

interface PageProps {
  devices: readonly Device[];
  guest: Guest;
  traffic: Traffic;
}

export function Page({ devices, guest, traffic }: PageProps) {
  return (
    <>
      <header class="top">
        <div>
          <h1>
            <svg viewBox="0 0 32 32" aria-hidden="true">
              <path d="M3 22a13 13 0 0 1 26 0M2 24h28M9 24v-9M16 24V10M23 24v-9" />
            </svg>
            SyncBridge
          </h1>
          <p class="muted">
            Two devices of one user. Change something on one; cut the other off, change both, and
            bring it back.
          </p>
        </div>
        <nav aria-label="Elsewhere on this server">
          <a href={location.hash} target="_blank" rel="noopener">
            Same session, new window
          </a>
          <a href="docs">API reference</a>
          <a href="admin/">Dashboard</a>
        </nav>
      </header>
      <main class="stage">
        {devices.map((device) => (
          <DeviceCard key={device.id} device={device} />
        ))}
        <div class="beside">
          <GuestCard guest={guest} />
          <TrafficCard traffic={traffic} />
        </div>
      </main>
    </>
  );
}

function GuestCard({ guest }: { guest: Guest }) {
  useChanges(guest);
  const { here, error, sound } = guest;
  return (
    <section class="card guest" aria-label={`${GUEST_NAME}, a guest`}>
      <p>
        <strong>{GUEST_NAME}</strong>{" "}
        <span class="muted">
          another user, {here ? "in the voice room" : "not in the voice room"}
        </span>
      </p>
      <div class="row">
        <button
          type="button"
          class="button"
          onClick={() => void (here ? guest.sendAway() : guest.invite())}
        >
          {here ? "Send away" : "Invite to the voice room"}
        </button>
        <button
          type="button"
          class="button"
          disabled={!here}
          aria-pressed={sound.speaking}
          onClick={() => guest.speak(!sound.speaking)}
        >
          {sound.speaking ? "Stop speaking" : "Speak"}
        </button>
      </div>
      {error && <p class="problem">{error}</p>}
    </section>
  );
}
