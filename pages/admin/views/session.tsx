/** One session: its state key by key, its devices, what happens in it, and what can be done to it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, path, query, RawBody } from "../access";
import { now as serverNow } from "../clock";
import { bytes, clock, count, date, parse, preview } from "../format";
import { type Commit, Tail } from "../tail";
import type { ConnectionRow, DeviceRow, Inspected, KeyRow } from "../types";
import {
  Act,
  Badge,
  Card,
  Dialog,
  download,
  Facts,
  Failure,
  Id,
  Json,
  Page,
  reason,
  Table,
  useAdmin,
  useLoaded,
  useSay,
  When,
} from "../ui/parts";

const LINES = 200;
/** Commits that wait for a state to be loaded; with a hole in them it is loaded again. */
const WAITING = 1_000;
const REDRAW = 250;
const NOT_KEPT =
  "The writer of each key is kept from when SYNCBRIDGE_KEY_WRITERS is set. While this page watches live, writers are exact.";
const ONE_OF = "One of these: an update of theirs was taken at this version.";

/** The state after a commit; undefined when commits are missing in between. */
function applied(session: Inspected, commit: Commit): Inspected | undefined {
  if (commit.version <= session.version) return session;
  if (commit.before !== session.version) return undefined;
  const gone = new Set([...commit.deleted, ...Object.keys(commit.changes)]);
  const keys = session.keys.filter(({ key }) => !gone.has(key));
  for (const [key, value] of Object.entries(commit.changes)) {
    keys.push({ key, value, version: commit.version, writer: commit.device, candidates: [] });
  }
  keys.sort((a, b) => (a.key < b.key ? -1 : 1));
  return {
    ...session,
    keys,
    version: commit.version,
    lineage: "",
    writer: commit.device,
    updated_at: new Date(serverNow()).toISOString(),
  };
}

export function Session({ id }: { id: string }) {
  const loaded = useLoaded(() => ask<Inspected>("GET", path`/admin/sessions/${id}`), [id]);
  const { value: session, error, reload } = loaded;
  const admin = useAdmin();
  const now = useRef(session);
  now.current = session;
  const take = (commits: Commit[]): boolean => {
    if (loaded.busy) return false;
    let next = now.current;
    for (const commit of commits) next &&= applied(next, commit);
    if (!next) void reload();
    else if (next !== now.current) loaded.set(next);
    return true;
  };
  return (
    <Page
      title="Session"
      aside={
        <>
          <button type="button" class="button" onClick={() => void reload()}>
            Refresh
          </button>
          {session && (
            <button type="button" class="button" onClick={() => save(session)}>
              Download
            </button>
          )}
          {session && <Expire session={session} />}
        </>
      }
    >
      <Failure text={error} />
      {!session && !error && <p class="empty">Looking…</p>}
      {session && (
        <>
          <p class="subtitle mono">{session.session_id}</p>
          <Facts
            facts={[
              [
                "User",
                <a key="user" href={`#/users/${encodeURIComponent(session.user_id)}`} class="mono">
                  {session.user_id}
                </a>,
              ],
              ["Version", session.version || "not written"],
              ["Last writer", <Id key="w">{session.writer || "–"}</Id>],
              ["Size", `${bytes(session.bytes)}, ${count(session.keys.length)} keys`],
              ["Changed", <When key="c" at={session.updated_at} />],
              ["Created", <When key="m" at={session.created_at} />],
              ["Expires", <When key="x" at={session.expires_at} />],
            ]}
          />
          <State session={session} reload={reload} />
          <Devices session={session} reload={reload} />
          {admin ? (
            <Live id={id} onCommits={take} reload={reload} />
          ) : (
            <p class="muted small">
              Watching live joins the session, for which role admin is needed.
            </p>
          )}
        </>
      )}
    </Page>
  );
}

function save(session: Inspected): void {
  const { keys, devices: _, ...rest } = session;
  const members = keys.map(({ key, value }) => `    ${JSON.stringify(key)}: ${value}`);
  const head = JSON.stringify(rest, null, 2).slice(0, -2);
  download(
    `${session.session_id}.json`,
    `${head},\n  "state_data": {\n${members.join(",\n")}\n  }\n}\n`,
  );
}

function Expire({ session }: { session: Inspected }) {
  const act = async () => {
    type Answer = { signed_out: number; expired: boolean; online: number };
    const answer = await ask<Answer>("DELETE", path`/admin/sessions/${session.session_id}`);
    if (!answer.expired)
      throw new Error(
        `${answer.online} devices came back meanwhile, so it goes on. Revoke the user's tokens first.`,
      );
    location.hash = "#/sessions";
    return `The session has ended; ${answer.signed_out} devices were signed out.`;
  };
  return (
    <Act
      label="End session"
      title="End this session?"
      danger
      confirm="End it for good"
      act={act}
      text={
        <p>
          Its {session.devices.length} devices are signed out and its {session.keys.length} keys are
          deleted. Nothing brings them back.
        </p>
      }
    />
  );
}

function State({ session, reload }: { session: Inspected; reload: () => Promise<void> }) {
  const [filter, setFilter] = useState("");
  const [editing, setEditing] = useState<KeyRow | "new">();
  const admin = useAdmin();
  const rows = session.keys.filter(({ key }) => key.includes(filter));
  return (
    <Card
      title="State"
      wide
      aside={
        <>
          <label class="inline">
            <span class="hidden">Keys that contain</span>
            <input
              type="search"
              placeholder="Key contains"
              value={filter}
              onInput={({ currentTarget }) => setFilter(currentTarget.value)}
            />
          </label>
          {admin && (
            <button type="button" class="button" onClick={() => setEditing("new")}>
              Add a key
            </button>
          )}
        </>
      }
    >
      <Table
        caption="Keys"
        rows={rows}
        by={(row) => row.key}
        empty={filter ? "No key contains that." : "The state is empty."}
        columns={[
          { head: "Key", cell: (row) => <Id>{row.key}</Id> },
          { head: "Value", cell: (row) => <Value text={row.value} /> },
          { head: "Version", number: true, cell: (row) => row.version || "–" },
          { head: "Last writer", cell: (row) => <Writer row={row} /> },
          ...(admin
            ? [
                {
                  head: "",
                  cell: (row: KeyRow) => (
                    <div class="row end">
                      <button
                        type="button"
                        class="button"
                        aria-label={`Edit ${row.key}`}
                        onClick={() => setEditing(row)}
                      >
                        Edit
                      </button>
                      <Delete row={row} session={session} reload={reload} />
                    </div>
                  ),
                },
              ]
            : []),
        ]}
      />
      {editing && (
        <Edit
          row={editing === "new" ? undefined : editing}
          session={session}
          onClose={() => setEditing(undefined)}
          reload={reload}
        />
      )}
    </Card>
  );
}

function Value({ text }: { text: string }) {
  const value = parse(text);
  if (typeof value === "string") text = JSON.stringify(value);
  else if (value !== null && typeof value === "object") return <Json value={value} />;
  return <span class="mono value">{preview(text, 200)}</span>;
}

function Writer({ row }: { row: KeyRow }) {
  if (row.writer) return <Id>{row.writer}</Id>;
  if (row.candidates.length) {
    return (
      <span title={ONE_OF}>
        <span class="muted">probably </span>
        <span class="mono">{row.candidates.join(", ")}</span>
      </span>
    );
  }
  return (
    <span class="muted" title={NOT_KEPT}>
      not kept
    </span>
  );
}

async function change(session: Inspected, changes: string, deleted: string[]): Promise<void> {
  // The values are JSON text of which no digit may be lost, so the body is put together as text.
  const body = JSON.stringify({
    session_id: session.session_id,
    user_id: session.user_id,
    device_id: "dashboard",
    base_version: session.version,
    base_lineage: session.lineage,
    deleted_keys: deleted,
  });
  await ask(
    "POST",
    "/session/incremental",
    new RawBody(`${body.slice(0, -1)},"changes":${changes}}`),
  );
}

function Delete({
  row,
  session,
  reload,
}: {
  row: KeyRow;
  session: Inspected;
  reload: () => Promise<void>;
}) {
  return (
    <Act
      label="Delete"
      title={`Delete ${row.key}?`}
      danger
      confirm="Delete it"
      text={
        <p>
          Every device is told at once. The value was:{" "}
          <span class="mono">{preview(row.value, 300)}</span>
        </p>
      }
      act={async () => {
        await change(session, "{}", [row.key]);
        await reload();
        return `${row.key} is deleted.`;
      }}
    />
  );
}

interface Editing {
  row: KeyRow | undefined;
  session: Inspected;
  onClose: () => void;
  reload: () => Promise<void>;
}

function problem(text: string): string {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is not JSON: ${reason(error)}`;
  }
}

function Edit({ row, session, onClose, reload }: Editing) {
  const [key, setKey] = useState(row?.key ?? "");
  const [text, setText] = useState(row?.value ?? "");
  const [sure, setSure] = useState(false);
  const [error, setError] = useState("");
  const say = useSay();
  const wrong = text ? problem(text) : "";
  const write = async () => {
    try {
      await change(session, `{${JSON.stringify(key)}:${text}}`, []);
      onClose();
      say(`${key} is written.`);
      await reload();
    } catch (failed) {
      setSure(false);
      setError(reason(failed));
    }
  };
  const before = session.keys.find((one) => one.key === key)?.value;
  return (
    <Dialog title={row ? `Edit ${row.key}` : "Add a key"} onClose={onClose}>
      <form
        class="column"
        onSubmit={(event) => {
          event.preventDefault();
          if (sure) void write();
          else setSure(true);
        }}
      >
        {sure ? (
          <>
            <p>Every device of the session is told at once.</p>
            <Facts
              facts={[
                ["Key", <Id key="k">{key}</Id>],
                [
                  "Now",
                  <span key="b" class="mono value">
                    {before === undefined ? "not there" : preview(before, 400)}
                  </span>,
                ],
                [
                  "Then",
                  <span key="a" class="mono value">
                    {preview(text, 400)}
                  </span>,
                ],
              ]}
            />
          </>
        ) : (
          <>
            {!row && (
              <label>
                Key
                <input
                  required
                  value={key}
                  onInput={({ currentTarget }) => setKey(currentTarget.value)}
                />
              </label>
            )}
            <label>
              Value, as JSON
              <textarea
                required
                rows={8}
                class="mono"
                spellcheck={false}
                value={text}
                onInput={({ currentTarget }) => setText(currentTarget.value)}
              />
            </label>
            <Failure text={wrong || error} />
          </>
        )}
        <div class="row end">
          <button type="button" class="button" onClick={sure ? () => setSure(false) : onClose}>
            {sure ? "Back" : "Cancel"}
          </button>
          <button type="submit" class="button primary" disabled={!text || Boolean(wrong)}>
            {sure ? "Write it" : "Continue"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Devices({ session, reload }: { session: Inspected; reload: () => Promise<void> }) {
  const device = (row: DeviceRow) => row.device_id;
  return (
    <Card title="Devices" wide>
      <Table
        caption="Devices"
        rows={session.devices}
        by={device}
        empty="No device has joined."
        columns={[
          { head: "Device", cell: (row) => <Id>{row.device_id}</Id> },
          {
            head: "What it is",
            cell: (row) =>
              [row.device_name, row.device_type, row.os_version].filter(Boolean).join(", ") || "–",
          },
          {
            head: "Presence",
            cell: (row) =>
              row.online ? (
                <span>
                  <Badge kind="good">online</Badge>{" "}
                  <span class="muted small">socket on {row.node}</span>
                </span>
              ) : (
                <span>
                  <Badge>offline</Badge>{" "}
                  <span class="muted small">
                    left <When at={row.last_seen} />
                  </span>
                </span>
              ),
          },
          { head: "Connected", cell: (row) => <When at={row.connected_at} /> },
          {
            head: "In a call",
            cell: (row) =>
              row.in_call ? (
                <a href={path`#/calls/${row.in_call}/${row.waddle_id}`}>{row.in_call}</a>
              ) : (
                "–"
              ),
          },
          {
            head: "",
            cell: (row) => (
              <div class="row end">
                {row.online && <Disconnect row={row} session={session} reload={reload} />}
                <SignOut row={row} session={session} reload={reload} />
                <Revoke row={row} session={session} reload={reload} />
              </div>
            ),
          },
        ]}
      />
    </Card>
  );
}

interface OfDevice {
  row: DeviceRow;
  session: Inspected;
  reload: () => Promise<void>;
}

function Disconnect({ row, session, reload }: OfDevice) {
  const act = async () => {
    const filter = { session_id: session.session_id, device_id: row.device_id, limit: 10 };
    type Open = { connections: ConnectionRow[] };
    const { connections } = await ask<Open>("GET", `/admin/connections${query(filter)}`);
    for (const { node, connection_id } of connections) {
      await ask("POST", "/admin/connections/close", { node, connection_id });
    }
    await reload();
    return connections.length
      ? `The socket of ${row.device_id} is closed.`
      : `${row.device_id} has no socket any more.`;
  };
  return (
    <Act
      label="Disconnect"
      title={`Disconnect ${row.device_id}?`}
      confirm="Close its socket"
      text={
        <p>Its socket is closed. Its client connects again by itself and goes on where it was.</p>
      }
      act={act}
    />
  );
}

function SignOut({ row, session, reload }: OfDevice) {
  return (
    <Act
      label="Sign out"
      title={`Sign ${row.device_id} out?`}
      danger
      confirm="Sign it out"
      text={
        <p>
          The session forgets the device, and its socket is closed with 4010. It may join again with
          its token.
        </p>
      }
      act={async () => {
        await ask("DELETE", path`/session/${session.session_id}/device/${row.device_id}`);
        await reload();
        return `${row.device_id} is signed out.`;
      }}
    />
  );
}

function Revoke({ row, session, reload }: OfDevice) {
  return (
    <Act
      label="Revoke"
      title={`Revoke the tokens of ${row.device_id}?`}
      danger
      confirm="Revoke them"
      text={
        <p>
          Tokens of user <span class="mono">{session.user_id}</span> that this device has, and those
          that it has used, end now on all nodes. Its sockets are closed with 4005.
        </p>
      }
      act={async () => {
        await ask("POST", "/auth/revoke", { user_id: session.user_id, device_id: row.device_id });
        await reload();
        return `Tokens of ${row.device_id} are revoked.`;
      }}
    />
  );
}

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
function Live({ id, onCommits, reload }: Watching) {
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
      },
      presence: (device, what) => note({ device, text: what }),
      commit: (commit) => {
        if (commits.length >= WAITING) commits = [];
        commits.push(commit);
        note({ device: commit.device, version: commit.version, text: said(commit) });
      },
    });
    const timer = setInterval(() => {
      if (commits.length && latest.current.onCommits(commits)) commits = [];
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
