/** Where the pointers of the other devices are: said while a device is there, never stored. */
import { useId, useState } from "preact/hooks";
import type { Device } from "./device";

const STEP = 0.04;
const MIDDLE = [0.5, 0.5] as const;
const MOVES: Record<string, readonly [number, number]> = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

type Point = readonly [number, number];

export function Cursors({ device }: { device: Device }) {
  const id = useId();
  const { session } = device;
  const [own, setOwn] = useState<Point | null>(null);
  const others = session.devices.filter(
    (one) => one.deviceId !== device.id && isPoint(one.me.cursor),
  );
  const say = (point: Point | null) => {
    setOwn(point);
    if (session.status !== "closed") session.setMe({ cursor: point });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const [x, y] = own ?? MIDDLE;
    say(within(x + move[0], y + move[1]));
  };
  return (
    <div class="control wide">
      <span id={id} class="label">
        Cursors
      </span>
      <div
        class="pad"
        role="application"
        aria-labelledby={id}
        aria-description="Arrow keys move the pointer of this device"
        tabIndex={0}
        onPointerMove={(event) => say(at(event))}
        onPointerLeave={() => say(null)}
        onBlur={() => say(null)}
        onKeyDown={onKeyDown}
      >
        <span class="hint muted">Move a pointer, or press arrow keys, in here</span>
        {own && <Pointer point={own} name="" />}
        {others.map((one) => (
          <Pointer key={one.deviceId} point={one.me.cursor as Point} name={one.deviceName} />
        ))}
      </div>
    </div>
  );
}

function Pointer({ point: [x, y], name }: { point: Point; name: string }) {
  return (
    <span class={name ? "pointer" : "pointer own"} style={{ left: percent(x), top: percent(y) }}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d="M2 1l11 6-5 1.5L5.500 14z" />
      </svg>
      {name}
    </span>
  );
}

function at(event: PointerEvent): Point {
  const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
  return within((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

function within(x: number, y: number): Point {
  return [x, y].map((v) => Number(Math.min(1, Math.max(0, v)).toFixed(3))) as unknown as Point;
}

function isPoint(value: unknown): value is Point {
  return Array.isArray(value) && value.length === 2 && value.every((v) => typeof v === "number");
}

function percent(share: number): string {
  return `${share * 100}%`;
}
