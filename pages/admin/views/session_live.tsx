/** What happens in a session while somebody watches. */
import { useEffect, useRef, useState } from "preact/hooks";
import { clock, date, preview } from "../format";
import { type Commit, Tail } from "../tail";
import { Card } from "../ui/parts";

const LINES = 200;
/** Commits that wait for a state to be loaded; with a hole in them it is loaded again. */
const WAITING = 1_000;
const REDRAW = 250;
/** Devices come and go: they are looked up again at most this often. */
const LOOK = 2_000;

interface Line {
  number: number;
  at: number;
  device: string;
  text: string;
  version?: number;
}

interface Watching {
  id: string;
  /** @returns false: not now, once more later */
  onCommits: (commits: Commit[]) => boolean;
  reload: () => Promise<void>;
}

/** What happens, from when watching was begun. `LINES` are kept; drawing is bounded in rate. */
export function Live({ id, onCommits, reload }: Watching) {
  const [on, setOn] = useState(false);
  const [paused, setPaused] = useState(false);
  const [lines, setLines] = useState<Line[]>([]);
  const [status, setStatus] = useState("");
  const latest = useRef({ paused, onCommits, reload });
  latest.current = { paused, onCommits, reload };
  const toggle = () => {
    setStatus(on ? "" : "Joining…");
    setOn(!on);
  };
  useEffect(() => {
    if (!on) return;
    let kept: Line[] = [];
    let commits: Commit[] = [];
    let numbers = 0;
    let dirty = false;
    let moved = false;
    let looked = 0;
    const note = (line: Omit<Line, "number" | "at">) => {
      kept.unshift({ number: numbers++, at: Date.now(), ...line });
      if (kept.length > LINES) kept.length = LINES;
      dirty = true;
    };
    const tail = new Tail(id, {
      status: setStatus,
      anew: () => void latest.current.reload(),
      ended: (text) => {
        setStatus(text);
        setOn(false);
        void latest.current.reload();
      },
      presence: (device, what) => {
        note({ device, text: what });
        moved = true;
      },
      commit: (commit) => {
        if (commits.length >= WAITING) commits = [];
        commits.push(commit);
        note({ device: commit.device, version: commit.version, text: said(commit) });
      },
    });
    const timer = setInterval(() => {
      if (commits.length && latest.current.onCommits(commits)) commits = [];
      if (moved && Date.now() - looked > LOOK) {
        moved = false;
        looked = Date.now();
        void latest.current.reload();
      }
      if (dirty && !latest.current.paused) setLines([...kept]);
      if (!latest.current.paused) dirty = false;
    }, REDRAW);
    return () => {
      clearInterval(timer);
      tail.stop();
      kept = [];
    };
  }, [on, id]);
  return (
    <Card
      title="Live"
      wide
      aside={
        <>
          {on && (
            <button
              type="button"
              class="button"
              aria-pressed={paused}
              onClick={() => setPaused(!paused)}
            >
              {paused ? "Go on" : "Pause"}
            </button>
          )}
          <button type="button" class={`button ${on ? "" : "primary"}`} onClick={toggle}>
            {on ? "Stop watching" : "Watch live"}
          </button>
        </>
      }
    >
      {!on && !lines.length && (
        <p class="empty">
          Watching joins the session as a device of type <code>support</code>, which the user's
          devices see. It writes nothing.
        </p>
      )}
      {status && (
        <p class="muted small pad" role="status">
          {status}
        </p>
      )}
      {on && !status && !lines.length && <p class="empty">Nothing has happened yet.</p>}
      {lines.length > 0 && (
        <ol class="tail" aria-label="Commits" tabIndex={0}>
          {lines.map((line) => (
            <li key={line.number}>
              <time class="muted" title={date(line.at)}>
                {clock(line.at)}
              </time>
              <span class="mono by">{line.device || "–"}</span>
              <span class="mono muted">{line.version ? `v${line.version}` : ""}</span>
              <span class="mono what">{line.text}</span>
            </li>
          ))}
        </ol>
      )}
    </Card>
  );
}

function said({ changes, deleted }: Commit): string {
  const set = Object.entries(changes).map(([key, value]) => `${key} = ${preview(value, 60)}`);
  return preview([...set, ...deleted.map((key) => `${key} deleted`)].join("; "), 300);
}
