/** The log of what travels. */
import { useChanges } from "../shared/changes";
import type { Frame, Traffic } from "./traffic";

export function TrafficCard({ traffic }: { traffic: Traffic }) {
  useChanges(traffic);
  const { frames, paused, total } = traffic;
  return (
    <section class="card traffic" aria-label="What travels">
      <header>
        <h2>What travels</h2>
        <span class="muted number">{total} messages</span>
        <button
          type="button"
          class="button small"
          aria-pressed={paused}
          onClick={() => traffic.pause(!paused)}
        >
          {paused ? "Go on" : "Pause"}
        </button>
        <button type="button" class="button small" onClick={() => traffic.clear()}>
          Clear
        </button>
      </header>
      <div class="frames" tabIndex={0} role="group" aria-label="Messages, the latest first">
        {frames.map((frame) => (
          <Row key={frame.id} frame={frame} />
        ))}
        {frames.length === 0 && <p class="muted">Nothing yet</p>}
      </div>
    </section>
  );
}

function Row({ frame: { at, device, sent, name, detail, text } }: { frame: Frame }) {
  return (
    <details class={sent ? "frame sent" : "frame"}>
      <summary>
        <time class="muted">{at.toISOString().slice(14, 23)}</time>
        <span class="who">{device}</span>
        <span class="way" role="img" aria-label={sent ? "sends" : "receives"}>
          {sent ? "↑" : "↓"}
        </span>
        <span class="name">{name}</span>
        <span class="detail">{detail}</span>
      </summary>
      <pre>{text}</pre>
    </details>
  );
}
