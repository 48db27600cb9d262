/** Where events are posted to: how that goes, and what an admin does about it. */
import { useState } from "preact/hooks";
import { ask, path, query } from "../access";
import { now } from "../clock";
import { count, ms } from "../format";
import type { Endpoint, EndpointLetter } from "../types";
import {
  Act,
  Badge,
  Card,
  Dialog,
  Facts,
  Failure,
  Id,
  Json,
  Once,
  Page,
  Pager,
  reason,
  Table,
  useAdmin,
  useLoaded,
  useSay,
  When,
} from "../ui/parts";

const ALL = "/admin/webhooks";
const ROWS = 50;
type Letters = { dead_letters: EndpointLetter[]; next_cursor: string };

export function Endpoints() {
  const { value, error, busy, reload } = useLoaded(
    () => ask<{ endpoints: Endpoint[] }>("GET", ALL),
    [],
  );
  return (
    <Page
      title="Webhooks out"
      aside={
        <>
          <button type="button" class="button" disabled={busy} onClick={() => void reload()}>
            Refresh
          </button>
          <Edit label="New endpoint" reload={reload} />
        </>
      }
    >
      <Failure text={error} />
      <Card title="Endpoints" wide>
        {value && (
          <Table
            caption="Endpoints"
            rows={value.endpoints}
            by={(row) => row.id}
            empty="Events are posted nowhere."
            columns={[
              { head: "Where", cell: (row) => <Id href={`#/endpoints/${row.id}`}>{row.url}</Id> },
              { head: "State", cell: (row) => <State of={row} /> },
              { head: "Delivered", number: true, cell: (row) => count(row.delivered) },
              { head: "Failed", number: true, cell: (row) => count(row.failed) },
              { head: "Held", number: true, cell: (row) => count(row.held) },
              { head: "Given up", number: true, cell: (row) => count(row.dead) },
              { head: "Lag", number: true, cell: (row) => lag(row) },
              { head: "Last error", cell: (row) => row.last_error || "–" },
            ]}
          />
        )}
      </Card>
    </Page>
  );
}

/** From an event to its delivery, of the latest one. */
function lag(endpoint: Endpoint): string {
  return endpoint.delivered_at ? ms(endpoint.late_ms) : "–";
}

function State({ of }: { of: Endpoint }) {
  const kind = of.enabled ? (of.failing_since ? "warn" : "good") : "bad";
  const text = of.enabled ? (of.failing_since ? "failing" : "enabled") : "disabled";
  return (
    <span class="row">
      <Badge kind={kind}>{text}</Badge>
      {of.configured && <Badge>in a file</Badge>}
    </span>
  );
}

/** One endpoint, what is done about it, and the events that were given up. */
export function EndpointPage({ id }: { id: string }) {
  const { value, error, reload } = useLoaded(
    () => ask<Endpoint>("GET", path`/admin/webhooks/${id}`),
    [id],
  );
  return (
    <Page
      title="Endpoint"
      aside={
        <>
          <button type="button" class="button" onClick={() => void reload()}>
            Refresh
          </button>
          {value && <Deeds of={value} reload={reload} />}
        </>
      }
    >
      <Failure text={error} />
      {value && (
        <>
          <Card title="How it goes" wide>
            <Facts facts={facts(value)} />
            {value.configured && (
              <p class="muted small pad">
                It stands in a file of <code>syncbridge deliver</code>, and is changed there.
              </p>
            )}
          </Card>
          <DeadLetters of={value} changed={reload} />
        </>
      )}
    </Page>
  );
}

function facts(one: Endpoint) {
  const about = [
    one.kinds.join(", ") || "every kind",
    one.session_id && `session ${one.session_id}`,
    one.user_id && `user ${one.user_id}`,
    one.channel_id && `channel ${one.channel_id}`,
    one.waddle_id && `waddle ${one.waddle_id}`,
    one.values && "with values",
  ];
  const together =
    one.batch_events > 1
      ? `up to ${one.batch_events} events within ${ms(one.batch_ms)}`
      : "each event alone";
  return [
    ["Where", <span class="mono">{one.url}</span>],
    ["What for", one.description || "–"],
    ["State", <State of={one} />],
    ...(one.disabled_reason ? ([["Disabled because", one.disabled_reason]] as const) : []),
    ["Events", about.filter(Boolean).join("; ")],
    ["Messages", together],
    [
      "Arrived",
      <span>
        {count(one.delivered)}, the latest <When at={one.delivered_at} />
      </span>,
    ],
    [
      "Failed attempts",
      <span>
        {count(one.failed)}, the latest <When at={one.failed_at} />
      </span>,
    ],
    ["Last error", one.last_error || "–"],
    ["Nothing arrives since", one.failing_since ? <When at={one.failing_since} /> : "–"],
    ["Held, to be tried again", count(one.held)],
    ["Given up", count(one.dead)],
    ["Lag of the latest", lag(one)],
    ["Secret rotated", <When at={one.rotated_at} />],
  ] as const;
}

function Deeds({ of, reload }: { of: Endpoint; reload: () => Promise<void> }) {
  const at = path`/admin/webhooks/${of.id}`;
  return (
    <>
      <Act
        label="Test"
        title="Send an event to try it?"
        confirm="Send it"
        text={<p>An event endpoint.test is posted there, and tried again like any other.</p>}
        act={async () => {
          await ask("POST", `${at}/test`);
          await reload();
          return "It is on its way.";
        }}
      />
      <Replay of={of} reload={reload} />
      {!of.configured && (
        <>
          <Edit label="Edit" of={of} reload={reload} />
          <Rotate of={of} reload={reload} />
          <Act
            label="Delete"
            title="Delete this endpoint?"
            danger
            confirm="Delete it"
            text={<p>With everything that is held for it, and its dead letters.</p>}
            act={async () => {
              await ask("DELETE", at);
              location.hash = "#/endpoints";
              return "It is deleted.";
            }}
          />
        </>
      )}
    </>
  );
}

function Replay({ of, reload }: { of: Endpoint; reload: () => Promise<void> }) {
  const [hours, setHours] = useState("1");
  return (
    <Act
      label="Replay a time"
      title="Send events again?"
      confirm="Send them"
      text={
        <label>
          What the log has of the last hours, at most 1,000 events
          <input
            type="number"
            min={1}
            max={720}
            value={hours}
            onInput={({ currentTarget }) => setHours(currentTarget.value)}
          />
        </label>
      }
      act={async () => {
        const since = Math.round(now() - Number(hours) * 3_600_000);
        type Answer = { replayed: number; more: boolean };
        const at = path`/admin/webhooks/${of.id}/replay`;
        const { replayed, more } = await ask<Answer>("POST", at, { since });
        await reload();
        return `${count(replayed)} events are sent again.${more ? " There are more." : ""}`;
      }}
    />
  );
}

function Rotate({ of, reload }: { of: Endpoint; reload: () => Promise<void> }) {
  const [secret, setSecret] = useState("");
  return (
    <>
      <Act
        label="Rotate secret"
        title="Give it another secret?"
        confirm="Rotate it"
        text={<p>The one before signs, too, until the next rotation.</p>}
        act={async () => {
          const made = await ask<Endpoint>("POST", path`/admin/webhooks/${of.id}/rotate`);
          setSecret(made.secret ?? "");
          return "It is rotated.";
        }}
      />
      <Secret text={secret} onClose={() => void reload().then(() => setSecret(""))} />
    </>
  );
}

function Secret({ text, onClose }: { text: string; onClose: () => void }) {
  if (!text) return null;
  return (
    <Dialog title="The secret" onClose={onClose}>
      <Once label="Shown once" text={text} />
      <div class="row end">
        <button type="button" class="button primary" onClick={onClose}>
          I have it
        </button>
      </div>
    </Dialog>
  );
}

const TEXTS = [
  ["description", "What for"],
  ["session_id", "Only of session"],
  ["user_id", "Only of user"],
  ["channel_id", "Only of voice channel"],
  ["waddle_id", "Only of waddle"],
] as const;

function given(of?: Endpoint) {
  return {
    url: of?.url ?? "https://",
    kinds: of?.kinds.join(", ") ?? "",
    session_id: of?.session_id ?? "",
    user_id: of?.user_id ?? "",
    channel_id: of?.channel_id ?? "",
    waddle_id: of?.waddle_id ?? "",
    description: of?.description ?? "",
    values: of?.values ?? false,
    batch_events: String(of?.batch_events ?? 1),
    batch_ms: String(of?.batch_ms ?? 0),
    enabled: of?.enabled ?? true,
  };
}

/** Change an endpoint, unless somebody else has since it was looked up: the whole of it is written. */
async function changed(of: Endpoint, told: object): Promise<Endpoint> {
  const at = path`/admin/webhooks/${of.id}`;
  const now = await ask<Endpoint>("GET", at);
  if (JSON.stringify(given(now)) !== JSON.stringify(given(of)))
    throw new Error("Somebody has changed it meanwhile. Cancel, and look at it again.");
  return ask<Endpoint>("PUT", at, told);
}

/** Make an endpoint, or change one: a form over the page. */
function Edit({
  label,
  of,
  reload,
}: {
  label: string;
  of?: Endpoint;
  reload: () => Promise<void>;
}) {
  const [form, setForm] = useState<ReturnType<typeof given>>();
  const [from, setFrom] = useState(of);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const [secret, setSecret] = useState("");
  const say = useSay();
  if (!useAdmin()) return null;
  const save = async (body: ReturnType<typeof given>) => {
    setBusy(true);
    setError("");
    try {
      const kinds = body.kinds.split(/[\s,]+/).filter(Boolean);
      const numbers = { batch_events: Number(body.batch_events), batch_ms: Number(body.batch_ms) };
      const told = { ...body, kinds, ...numbers };
      const made = from ? await changed(from, told) : await ask<Endpoint>("POST", ALL, told);
      setForm(undefined);
      setSecret(made.secret ?? "");
      say(of ? "It is changed." : "It is made.");
      await reload();
    } catch (failed) {
      setError(reason(failed));
      await reload();
    } finally {
      setBusy(false);
    }
  };
  const open = () => {
    setError("");
    setFrom(of);
    setForm(given(of));
  };
  return (
    <>
      <button type="button" class="button" onClick={open}>
        {label}
      </button>
      {form && (
        <Dialog title={label} onClose={() => setForm(undefined)}>
          <form
            class="form column"
            onSubmit={(event) => {
              event.preventDefault();
              void save(form);
            }}
          >
            <Fields form={form} set={setForm} />
            <Failure text={error} />
            <div class="row end">
              <button type="button" class="button" onClick={() => setForm(undefined)}>
                Cancel
              </button>
              <button type="submit" class="button primary" disabled={busy}>
                {of ? "Change it" : "Make it"}
              </button>
            </div>
          </form>
        </Dialog>
      )}
      <Secret text={secret} onClose={() => setSecret("")} />
    </>
  );
}

type Form = ReturnType<typeof given>;

function Fields({ form, set }: { form: Form; set: (form: Form) => void }) {
  const text = (name: keyof Form, label: string, more = {}) => (
    <label key={name}>
      {label}
      <input
        {...more}
        value={String(form[name])}
        onInput={({ currentTarget }) => set({ ...form, [name]: currentTarget.value })}
      />
    </label>
  );
  const check = (name: "values" | "enabled", label: string) => (
    <label class="check">
      <input
        type="checkbox"
        checked={form[name]}
        onChange={({ currentTarget }) => set({ ...form, [name]: currentTarget.checked })}
      />
      {label}
    </label>
  );
  return (
    <>
      {text("url", "URL", { type: "url", required: true, maxLength: 2_048 })}
      {text("kinds", "Kinds, such as session.*; none: all", { spellcheck: false })}
      {TEXTS.map(([name, label]) => text(name, label, { maxLength: 256 }))}
      {text("batch_events", "Events in a message, at most", { type: "number", min: 1, max: 100 })}
      {text("batch_ms", "Milliseconds to wait for them", { type: "number", min: 0, max: 10_000 })}
      {check("values", "with the values that were written")}
      {check("enabled", "enabled")}
    </>
  );
}

function DeadLetters({ of, changed }: { of: Endpoint; changed: () => Promise<void> }) {
  const [cursors, setCursors] = useState([""]);
  const cursor = cursors.at(-1)!;
  const at = path`/admin/webhooks/${of.id}`;
  const { value, error, reload } = useLoaded(
    () => ask<Letters>("GET", `${at}/dead-letters${query({ cursor, limit: ROWS })}`),
    [of.id, cursor],
  );
  const done = async (said: string) => {
    await Promise.all([reload(), changed()]);
    return said;
  };
  const replay = async (entries: string[]) => {
    await ask("POST", `${at}/replay`, { entries });
    return done("They are sent again.");
  };
  return (
    <Card
      title="Dead letters"
      wide
      aside={
        value &&
        value.dead_letters.length > 1 && (
          <Act
            label="Replay all shown"
            title={`Send ${value.dead_letters.length} dead letters again?`}
            confirm="Send them"
            text={<p>What fails again for three days comes back here.</p>}
            act={() => replay(value.dead_letters.map(({ entry }) => entry))}
          />
        )
      }
    >
      <Failure text={error} />
      {value && (
        <Table
          caption="Dead letters"
          rows={value.dead_letters}
          by={(row) => row.entry}
          empty="There are none: nothing was given up."
          columns={[
            { head: "Given up", cell: (row) => <When at={row.failed_at} /> },
            { head: "Reason", cell: (row) => row.reason },
            { head: "Message", cell: (row) => <Id>{row.event_id}</Id> },
            { head: "Event", cell: (row) => <Json value={row.event} depth={1} /> },
            {
              head: "",
              cell: (row) => (
                <div class="row end">
                  <Act
                    label="Replay"
                    title="Send it again?"
                    confirm="Send it"
                    text={<p>With the same id. If it fails for three days it comes back here.</p>}
                    act={() => replay([row.entry])}
                  />
                  <Act
                    label="Discard"
                    title="Discard this letter?"
                    danger
                    confirm="Discard it"
                    text={<p>The endpoint will not be told of it.</p>}
                    act={async () => {
                      await ask("DELETE", `${at}${path`/dead-letters/${row.entry}`}`);
                      return done("It is discarded.");
                    }}
                  />
                </div>
              ),
            },
          ]}
        />
      )}
      <Pager cursors={cursors} next={value?.next_cursor} go={setCursors} />
    </Card>
  );
}
