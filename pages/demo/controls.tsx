/** What the devices share: a slider, a counter, a list, and a text. */
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { newUuid } from "../shared/ids";
import type { Device } from "./device";
import type { Item } from "./room";

type Props = { device: Device };

export function Slider({ device: { session } }: Props) {
  const id = useId();
  const value = numberOr(session.get("slider"), 50);
  return (
    <div class="control">
      <label for={id}>Slider</label>
      <div class="row">
        <input
          id={id}
          type="range"
          min="0"
          max="100"
          value={value}
          onInput={(event) => session.set("slider", event.currentTarget.valueAsNumber)}
        />
        <output for={id}>{value}</output>
      </div>
    </div>
  );
}

export function Counter({ device: { session } }: Props) {
  const id = useId();
  return (
    <div class="control">
      <span id={id} class="label">
        Counter
      </span>
      <div class="row" role="group" aria-labelledby={id}>
        <button
          type="button"
          class="button"
          aria-label="Less"
          onClick={() => session.incr("counter", -1)}
        >
          −
        </button>
        <output class="number" aria-labelledby={id}>
          {numberOr(session.get("counter"), 0)}
        </output>
        <button
          type="button"
          class="button"
          aria-label="More"
          onClick={() => session.incr("counter", 1)}
        >
          +
        </button>
      </div>
    </div>
  );
}

export function List({ device: { session } }: Props) {
  const id = useId();
  const items = Object.entries(session.get("list") ?? {})
    .filter(([, item]) => isItem(item))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const add = (event: SubmitEvent) => {
    event.preventDefault();
    const input = (event.currentTarget as HTMLFormElement).elements.namedItem("item");
    const field = input as HTMLInputElement;
    const text = field.value.trim();
    if (text) session.merge("list", { [newItem()]: { text, done: false } });
    field.value = "";
  };
  return (
    <div class="control wide">
      <label for={id}>List</label>
      <ul class="items">
        {items.map(([key, { text, done }]) => (
          <li key={key}>
            <label>
              <input
                type="checkbox"
                checked={done}
                onChange={() => session.merge("list", { [key]: { done: !done } })}
              />
              <span class={done ? "done" : ""}>{text}</span>
            </label>
            <button
              type="button"
              class="button small"
              aria-label={`Remove ${text}`}
              onClick={() => session.merge("list", { [key]: null })}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
      <form class="row" onSubmit={add}>
        <input
          id={id}
          name="item"
          maxLength={60}
          autocomplete="off"
          placeholder="Something to do"
        />
        <button type="submit" class="button">
          Add
        </button>
      </form>
    </div>
  );
}

// Anybody may write into the session, also what this page does not.

function numberOr(value: unknown, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}

function isItem(value: unknown): value is Item {
  return typeof Object(value).text === "string";
}

/** Ids sort by the time at which they were made. */
function newItem(): string {
  return `${Date.now().toString(36)}-${newUuid().slice(0, 4)}`;
}

export function Text({ device: { session } }: Props) {
  const id = useId();
  const text = String(session.get("text") ?? "");
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const area = field.current!;
    if (area.value === text) return;
    const { selectionStart, selectionEnd } = area;
    area.value = text;
    area.setSelectionRange(selectionStart, selectionEnd);
  }, [text]);
  return (
    <div class="control wide">
      <label for={id}>Text</label>
      <textarea
        id={id}
        ref={field}
        rows={3}
        maxLength={2000}
        placeholder="Lines of both devices are kept"
        onInput={(event) => session.set("text", event.currentTarget.value)}
      />
    </div>
  );
}
