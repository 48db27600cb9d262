/** Who is in the call, as this device hears it from the server, and the way in and out. */
import type { Participant } from "@syncbridge/client/voice";
import { useId, useState } from "preact/hooks";
import { type Device, USER } from "./device";
import { GUEST, GUEST_NAME } from "./guest";

export function VoiceRoom({ device }: { device: Device }) {
  const id = useId();
  const { call, callState, callError, voice, sound } = device;
  const [tone, setTone] = useState(sound.tone);
  const out = callState === "out";
  const people = call?.participants ?? [];
  const choose = (chosen: boolean) => {
    sound.tone = chosen;
    setTone(chosen);
  };
  return (
    <div class="control wide">
      <span id={id} class="label">
        Voice room {callState !== "out" && <span class={`call ${callState}`}>{callState}</span>}
      </span>
      <ul class="people" aria-labelledby={id}>
        {people.length === 0 && <li class="nobody muted">Nobody is in it</li>}
        {people.map((one) => (
          <Person key={one.userId} person={one} device={device} />
        ))}
      </ul>
      <div class="row">
        {out ? (
          <button type="button" class="button primary" onClick={() => void device.join()}>
            Join
          </button>
        ) : (
          <>
            <button type="button" class="button" onClick={() => void device.leave()}>
              Leave
            </button>
            <button
              type="button"
              class="button"
              aria-pressed={voice.muted}
              onClick={() => void device.mute()}
            >
              {voice.muted ? "Unmute" : "Mute"}
            </button>
          </>
        )}
        <label class="choice">
          <input
            type="checkbox"
            checked={tone}
            disabled={!out}
            onChange={(event) => choose(event.currentTarget.checked)}
          />
          test tone instead of the microphone
        </label>
      </div>
      {callError && <p class="problem">{callError}</p>}
    </div>
  );
}

function Person({ person, device }: { person: Participant; device: Device }) {
  const { userId, deviceId, muted, speaking } = person;
  const name = userId === USER ? "You" : userId === GUEST ? GUEST_NAME : userId;
  const holder = device.session.devices.find((one) => one.deviceId === deviceId);
  const where = holder ? ` on ${holder.deviceName}` : "";
  const speaks = speaking && !muted && device.online;
  const state = muted ? "muted" : speaks ? "speaks" : "";
  return (
    <li class={speaks ? "person speaking" : "person"}>
      <span class="face" aria-hidden="true">
        {name[0]}
      </span>
      <span>
        {name}
        {where}
      </span>
      <span class="says">{state}</span>
    </li>
  );
}
