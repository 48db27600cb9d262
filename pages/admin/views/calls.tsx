/** The calls that are live, and those that a user is in or was. */
import { useEffect, useState } from "preact/hooks";
import { ask, path, query } from "../access";
import { count } from "../format";
import type { ChannelRow, UserCall } from "../types";
import {
  Badge,
  Card,
  Failure,
  Id,
  Page,
  Pager,
  reason,
  Table,
  useFeed,
  useLoaded,
  When,
} from "../ui/parts";

type Listed = { channels: ChannelRow[]; nextCursor: string; damaged: number };
const ROWS = 50;

function kind(status: string): "good" | "warn" | "bad" {
  return status === "healthy" ? "good" : status === "degraded" ? "warn" : "bad";
}

export function Calls({ user: given = "" }: { user?: string }) {
  const feed = useFeed();
  if (!feed.me.voice) {
    return (
      <Page title="Calls">
        <p class="empty">No voice provider is configured here, so there are no calls.</p>
      </Page>
    );
  }
  return (
    <Page title="Calls">
      <OfUser given={given} />
      <Channels />
    </Page>
  );
}

function OfUser({ given }: { given: string }) {
  const [text, setText] = useState(given);
  const [user, setUser] = useState("");
  const [calls, setCalls] = useState<UserCall[]>();
  const [error, setError] = useState("");
  const look = async (name: string) => {
    setError("");
    try {
      const { calls } = await ask<{ calls: UserCall[] }>("GET", path`/admin/users/${name}/calls`);
      setUser(name);
      setCalls(calls);
    } catch (failed) {
      setCalls(undefined);
      setError(reason(failed));
    }
  };
  useEffect(() => {
    if (given) void look(given);
  }, []);
  return (
    <section class="card wide" aria-label="Calls of a user">
      <form
        class="form row"
        onSubmit={(event) => {
          event.preventDefault();
          if (text.trim()) void look(text.trim());
        }}
      >
        <label class="grow">
          Which calls is a user in?
          <input
            type="search"
            placeholder="User"
            required
            autocomplete="off"
            spellcheck={false}
            value={text}
            onInput={({ currentTarget }) => setText(currentTarget.value)}
          />
        </label>
        <button type="submit" class="button primary">
          Look
        </button>
      </form>
      <Failure text={error} />
      {calls && (
        <>
          <p class="pad" role="status">
            {answer(user, calls)}
          </p>
          <Table
            caption={`Calls of ${user}`}
            rows={calls}
            by={place}
            empty="Nothing is known of this user in the last 30 days."
            columns={[
              {
                head: "Channel",
                cell: (row) => <Id href={`#/calls/${place(row)}`}>{row.channelId}</Id>,
              },
              { head: "Waddle", cell: (row) => <Id>{row.waddleId || "–"}</Id> },
              {
                head: "State",
                cell: (row) => <Badge kind={row.state === "left" ? "" : "good"}>{row.state}</Badge>,
              },
              { head: "Since", cell: (row) => <When at={row.joinedAt ?? row.lastAt} /> },
              { head: "Device", cell: (row) => <Id>{row.deviceId || "–"}</Id> },
            ]}
          />
        </>
      )}
    </section>
  );
}

/** A channel in an address of the dashboard: its id, and the waddle that it is in. */
function place({ channelId, waddleId }: { channelId: string; waddleId: string }): string {
  return path`${channelId}/${waddleId}`;
}

function answer(user: string, calls: UserCall[]): string {
  const within = calls.filter(({ state }) => state !== "left").map(({ channelId }) => channelId);
  return within.length
    ? `${user} is in a call now: ${within.join(", ")}.`
    : `${user} is in no call now.`;
}

function Channels() {
  const [cursors, setCursors] = useState([""]);
  const cursor = cursors.at(-1)!;
  const { value, error, busy, reload } = useLoaded(
    () => ask<Listed>("GET", `/admin/voice/channels${query({ cursor, limit: ROWS })}`),
    [cursor],
  );
  return (
    <Card
      title="Live calls"
      wide
      aside={
        <button type="button" class="button" disabled={busy} onClick={() => void reload()}>
          Refresh
        </button>
      }
    >
      <Failure text={error} />
      {value && (
        <>
          <Table
            caption="Live calls"
            rows={value.channels}
            by={place}
            empty="Nobody is in a call."
            columns={[
              {
                head: "Channel",
                cell: (row) => <Id href={`#/calls/${place(row)}`}>{row.channelId}</Id>,
              },
              { head: "Waddle", cell: (row) => <Id>{row.waddleId || "–"}</Id> },
              {
                head: "Health",
                cell: (row) => <Badge kind={kind(row.status)}>{row.status}</Badge>,
              },
              { head: "State", cell: (row) => row.state },
              { head: "Participants", number: true, cell: (row) => count(row.participants) },
              {
                head: "Doubtful",
                number: true,
                cell: (row) => (row.doubtful ? <Badge kind="warn">{row.doubtful}</Badge> : "0"),
              },
              { head: "Compared", cell: (row) => <When at={row.lastSyncAt} /> },
              { head: "Begun", cell: (row) => <When at={row.createdAt} /> },
            ]}
          />
          <Pager cursors={cursors} next={value.nextCursor} go={setCursors}>
            {value.damaged > 0 && <span class="muted small">{value.damaged} cannot be read</span>}
          </Pager>
        </>
      )}
    </Card>
  );
}
