/** Finding a session: by its id, its user, or a device that it remembers. The address has the search. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, query } from "../access";
import { bytes, count } from "../format";
import { DASHBOARDS } from "../live";
import type { SessionRow } from "../types";
import { Badge, Card, Failure, Id, Page, reason, Table, When } from "../ui/parts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const ROWS = 50;
const STEPS = 8;

interface Found {
  sessions: SessionRow[];
  next_cursor: string;
  damaged: number;
}

/** One walk through what Redis holds, to be gone on with. */
interface Walk {
  filter: Record<string, string | boolean>;
  cursor: string;
}

interface Results {
  rows: SessionRow[];
  open: Walk[];
  damaged: number;
}

function walks(text: string, active: boolean): Walk[] {
  if (!text) return [{ filter: { active }, cursor: "" }];
  const names = UUID.test(text) ? ["session_id", "user_id", "device_id"] : ["user_id", "device_id"];
  return names.map((name) => ({ filter: { [name]: text, active }, cursor: "" }));
}

/** Go on with walks until there are rows enough, or a bound of steps is reached. */
async function further(results: Results): Promise<Results> {
  const rows = new Map(results.rows.map((row) => [row.session_id, row]));
  const most = rows.size + ROWS;
  let { open, damaged } = results;
  for (let step = 0; step < STEPS && open.length && rows.size < most; step += 1) {
    const pages = await Promise.all(
      open.map(({ filter, cursor }) =>
        ask<Found>("GET", `/admin/sessions${query({ ...filter, cursor, limit: ROWS })}`),
      ),
    );
    for (const page of pages) {
      damaged += page.damaged;
      for (const row of page.sessions) {
        if (row.session_id !== DASHBOARDS || row.version) rows.set(row.session_id, row);
      }
    }
    open = open
      .map(({ filter }, at) => ({ filter, cursor: pages[at]!.next_cursor }))
      .filter(({ cursor }) => cursor);
  }
  return { rows: [...rows.values()], open, damaged };
}

/** The address of a search. */
function address(text: string, online: boolean): string {
  return `#/sessions${query({ q: text, online })}`;
}

/** The address of the sessions of a user. */
export function sessionsOf(user: string): string {
  return address(user, false);
}

/** `sought`: the query in the address. */
export function Sessions({ sought }: { sought: string }) {
  const asked = new URLSearchParams(sought);
  const [words, online] = [asked.get("q") ?? "", asked.has("online")];
  const [text, setText] = useState(words);
  const [results, setResults] = useState<Results>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const box = useRef<HTMLInputElement>(null);
  const turn = useRef(0);
  const go = async (begin: Results) => {
    const mine = ++turn.current;
    setBusy(true);
    setError("");
    try {
      const found = await further(begin);
      if (mine === turn.current) setResults(found);
    } catch (failed) {
      if (mine === turn.current) setError(reason(failed));
    }
    if (mine === turn.current) setBusy(false);
  };
  const search = () => void go({ rows: [], open: walks(words, online), damaged: 0 });
  const look = (only: boolean) => {
    const to = address(text.trim(), only);
    if (to === address(words, online)) search();
    else location.hash = to;
  };
  useEffect(() => {
    setText(words);
    search();
  }, [words, online]);
  useEffect(() => {
    const slash = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      box.current?.focus();
    };
    addEventListener("keydown", slash);
    return () => {
      turn.current += 1;
      removeEventListener("keydown", slash);
    };
  }, []);
  return (
    <Page title="Sessions">
      <form
        class="card form row"
        onSubmit={(event) => {
          event.preventDefault();
          look(online);
        }}
      >
        <label class="grow">
          User, session or device
          <input
            ref={box}
            type="search"
            placeholder="Press / to search"
            autocomplete="off"
            spellcheck={false}
            value={text}
            onInput={({ currentTarget }) => setText(currentTarget.value)}
          />
        </label>
        <label class="check">
          <input
            type="checkbox"
            checked={online}
            onChange={({ currentTarget }) => look(currentTarget.checked)}
          />
          with a device online
        </label>
        <button type="submit" class="button primary">
          Search
        </button>
      </form>
      <Failure text={error} />
      {results && (
        <Card title="Found" wide aside={busy && <span class="muted small">Looking…</span>}>
          <Table
            caption="Sessions"
            whole
            rows={results.rows}
            by={(row) => row.session_id}
            empty={
              results.open.length
                ? "Nothing yet; there is more to look through."
                : "No such session. Ids are looked for whole."
            }
            columns={[
              {
                head: "Session",
                cell: (row) => <Id href={`#/sessions/${row.session_id}`}>{row.session_id}</Id>,
              },
              { head: "User", cell: (row) => <Id>{row.user_id}</Id> },
              {
                head: "Devices",
                cell: (row) => (
                  <Badge kind={row.devices_online ? "good" : ""}>
                    {row.devices_online} of {row.devices} online
                  </Badge>
                ),
              },
              {
                head: "Version",
                number: true,
                cell: (row) => (row.version ? row.version : "not written"),
              },
              { head: "Size", number: true, cell: (row) => bytes(row.bytes) },
              { head: "Changed", cell: (row) => <When at={row.updated_at} /> },
            ]}
          />
          <div class="row foot">
            <span class="muted small">
              {count(results.rows.length)} shown
              {results.damaged ? `, ${results.damaged} cannot be read` : ""}
            </span>
            {results.open.length > 0 && (
              <button type="button" class="button" disabled={busy} onClick={() => void go(results)}>
                Look further
              </button>
            )}
          </div>
        </Card>
      )}
      {busy && !results && <p class="empty">Looking…</p>}
    </Page>
  );
}
