/** The state of a session, key by key, and changes to it. */
import { useState } from "preact/hooks";
import { ApiError, ask, RawBody } from "../access";
import { parse, preview } from "../format";
import type { Inspected, KeyRow } from "../types";
import {
  Act,
  Card,
  Dialog,
  Facts,
  Failure,
  Id,
  Json,
  reason,
  Table,
  useAdmin,
  useSay,
} from "../ui/parts";

const NOT_KEPT =
  "The writer of each key is kept from when SYNCBRIDGE_KEY_WRITERS is set. While this page watches live, writers are exact.";
const ONE_OF = "One of these: an update of theirs was taken at this version.";

interface OfSession {
  session: Inspected;
  reload: () => Promise<void>;
}

export function State({ session, reload }: OfSession) {
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

/** What is written takes the place of what was there when the dialog was opened, and of nothing newer. */
function Edit({ row, session, onClose, reload }: Editing) {
  const [key, setKey] = useState(row?.key ?? "");
  const [text, setText] = useState(row?.value ?? "");
  const [base, setBase] = useState(session);
  const [late, setLate] = useState(false);
  const [sure, setSure] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const say = useSay();
  const wrong = text ? problem(text) : "";
  const write = async () => {
    setBusy(true);
    try {
      await change(base, `{${JSON.stringify(key)}:${text}}`, []);
      onClose();
      say(`${key} is written.`);
      await reload();
    } catch (failed) {
      setSure(false);
      setError(reason(failed));
      if (failed instanceof ApiError && failed.status === 409) {
        setLate(true);
        await reload();
      }
    }
    setBusy(false);
  };
  const goOn = () => {
    if (late) setBase(session);
    setLate(false);
    setError("");
    setSure(true);
  };
  const before = base.keys.find((one) => one.key === key)?.value;
  return (
    <Dialog title={row ? `Edit ${row.key}` : "Add a key"} onClose={onClose}>
      <form
        class="column"
        onSubmit={(event) => {
          event.preventDefault();
          if (sure) void write();
          else goOn();
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
          <button type="submit" class="button primary" disabled={busy || !text || Boolean(wrong)}>
            {sure ? "Write it" : "Continue"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
