/** One voice channel: who is in its call by whose word, how well it is, and what was said of it. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, ask, path, query } from "../access";
import { clock, date, span } from "../format";
import type { Channel, Participant, Recording, TimelineEntry } from "../types";
import {
  Act,
  Badge,
  Card,
  download,
  Facts,
  Failure,
  Id,
  Page,
  reason,
  Table,
  useAdmin,
  useLoaded,
  useSay,
  When,
} from "../ui/parts";

import { sessionsOf } from "./sessions";

type Told = { entries: TimelineEntry[]; nextCursor: string };
const ROWS = 50;
const EVERY = 5_000;

/** `waddle`: the channel's; empty where it is not known. */
export function Call({ id, waddle }: { id: string; waddle: string }) {
  const [waddles, setWaddles] = useState<string[]>([]);
  const load = async () => {
    try {
      return await ask<Channel>("GET", `${path`/admin/voice/channels/${id}`}${query({ waddle })}`);
    } catch (error) {
      if (error instanceof ApiError && error.code === "ambiguous")
        setWaddles(error.body.waddles as string[]);
      throw error;
    }
  };
  const { value: channel, error, reload } = useLoaded(load, [id, waddle]);
  const [often, setOften] = useState(false);
  useEffect(() => {
    if (!often) return;
    const timer = setInterval(() => document.hidden || void reload(), EVERY);
    return () => clearInterval(timer);
  }, [often, id]);
  return (
    <Page
      title={`Call in ${id}`}
      aside={
        <>
          <label class="check">
            <input
              type="checkbox"
              checked={often}
              onChange={({ currentTarget }) => setOften(currentTarget.checked)}
            />
            every 5 s
          </label>
          <button type="button" class="button" onClick={() => void reload()}>
            Refresh
          </button>
          {channel?.session && <Deeds channel={channel} reload={reload} />}
        </>
      }
    >
      {!waddles.length && <Failure text={error} />}
      {waddles.length > 0 && (
        <Card title="Several waddles have a channel of this id">
          <ul class="pad">
            {waddles.map((one) => (
              <li key={one}>
                <Id href={path`#/calls/${id}/${one}`}>{one}</Id>
              </li>
            ))}
          </ul>
        </Card>
      )}
      {channel && (
        <>
          <p
            class={`sentence ${channel.health.status === "healthy" ? "good" : "bad"}`}
            role="status"
          >
            {sentence(channel)}
          </p>
          <Facts facts={facts(channel)} />
          <Participants channel={channel} reload={reload} />
          <Timeline channel={channel} />
          <Recordings channel={channel} />
        </>
      )}
    </Page>
  );
}

function sentence(channel: Channel): string {
  if (!channel.session) return "There is no call in this channel now.";
  const names = channel.participants.map(({ userId }) => userId);
  const who = names.length
    ? `${names.slice(0, 12).join(", ")}${names.length > 12 ? " and others" : ""}`
    : "nobody";
  const why = channel.health.reason ? ` ${channel.health.reason}.` : "";
  return `In the call: ${who}. The call is ${channel.health.status}.${why}`;
}

function facts(channel: Channel): [string, preact.ComponentChildren][] {
  const { session, metrics, migration, health } = channel;
  const failed = Object.entries(health.checks).filter(([, passed]) => !passed);
  return [
    ["Waddle", <Id key="w">{channel.waddleId}</Id>],
    ["Provider's session", session ? <Id key="s">{session.sessionId}</Id> : "none"],
    ["State", session?.state ?? "no call"],
    ["Generation", session?.generation ?? "–"],
    ["Begun", <When key="b" at={session?.createdAt ?? null} />],
    ["Recording", session?.recording || "–"],
    ["Most participants", metrics?.peakParticipants ?? "–"],
    [
      "Migrations",
      migration
        ? `${metrics?.migrations ?? 0}, the last one ${migration.result} (${migration.reason})`
        : 0,
    ],
    ["Health", `${Math.round(100 * health.score)} %`],
    ["Checks that fail", failed.length ? failed.map(([name]) => name).join(", ") : "none"],
    ["Last error", session?.lastError || "none"],
  ];
}

interface OfCall {
  channel: Channel;
  reload: () => Promise<void>;
}

/** The address of something that is done to a channel. */
function deed({ channelId, waddleId }: Channel, what: string): string {
  return `${path`/voice/channels/${channelId}/${what}`}${query({ waddle: waddleId })}`;
}

function Deeds({ channel, reload }: OfCall) {
  const act = (what: string, said: string) => async () => {
    await ask("POST", deed(channel, what));
    await reload();
    return said;
  };
  return (
    <>
      <Act
        label="Migrate"
        title="Move the call to a new session?"
        confirm="Move it"
        text={
          <p>
            Everybody is told to come over to another session at the provider. It takes a moment.
          </p>
        }
        act={act("migrate", "Participants are told to come over.")}
      />
      <Act
        label="End call"
        title="End the call?"
        danger
        confirm="End it for all"
        text={<p>Everybody is told that the call is over, and the provider's session is ended.</p>}
        act={act("end", "The call has ended.")}
      />
    </>
  );
}

/** The signs of one source, over all connections of somebody. */
function Signs({ row, source }: { row: Participant; source: string }) {
  const connections = row.evidence?.connections ?? [];
  const seen = connections.filter(({ seenBy }) => seenBy === source).map(({ seenAt }) => seenAt);
  const doubts = connections.flatMap((one) =>
    one.doubts.filter((doubt) => doubt.source === source),
  );
  const newest = seen.sort().at(-1) ?? (row.evidence?.source === source ? row.joinedAt : undefined);
  return (
    <span>
      {newest ? (
        <>
          seen <When at={newest} />
        </>
      ) : (
        <span class="muted">–</span>
      )}
      {doubts.map(({ at }) => (
        <Badge key={at} kind="warn">
          gone <When at={at} />
        </Badge>
      ))}
    </span>
  );
}

function Participants({ channel, reload }: OfCall) {
  const connections = (row: Participant) => row.evidence?.connections ?? [];
  const lease = (row: Participant) =>
    connections(row)
      .map(({ leaseUntil }) => leaseUntil)
      .filter((until) => until !== null)
      .sort()
      .at(-1) ?? null;
  return (
    <Card title="Participants and their evidence" wide>
      <Table
        caption="Participants"
        rows={channel.participants}
        by={(row) => row.userId}
        empty="Nobody is in the call."
        columns={[
          { head: "User", cell: (row) => <Id href={sessionsOf(row.userId)}>{row.userId}</Id> },
          {
            head: "State",
            cell: (row) => (
              <>
                <Badge
                  kind={connections(row).some(({ doubts }) => doubts.length) ? "warn" : "good"}
                >
                  {row.state}
                </Badge>
                {row.muted && <Badge>muted</Badge>}
              </>
            ),
          },
          { head: "In since", cell: (row) => <When at={row.joinedAt} /> },
          {
            head: "Shown by",
            cell: (row) =>
              row.evidence ? (
                <span>
                  {row.evidence.source || "not noted"} <Id>{row.evidence.ref}</Id>
                </span>
              ) : (
                "–"
              ),
          },
          {
            head: "Webhook",
            cell: (row) => <Signs row={row} source="webhook" />,
          },
          {
            head: "Provider's list",
            cell: (row) => <Signs row={row} source="list" />,
          },
          {
            head: "Own device",
            cell: (row) => <Signs row={row} source="report" />,
          },
          {
            head: "Reports hold",
            cell: (row) => (lease(row) ? <When at={lease(row)} /> : <span class="muted">–</span>),
          },
          {
            head: "Confirmed",
            cell: (row) =>
              row.evidence ? (
                <span>
                  {row.evidence.lastConfirmedBy} <When at={row.evidence.lastConfirmedAt} />
                </span>
              ) : (
                "–"
              ),
          },
          {
            head: "",
            cell: (row) => (
              <div class="row end">
                <Mute channel={channel} reload={reload} user={row.userId} />
                <Kick channel={channel} reload={reload} user={row.userId} />
              </div>
            ),
          },
        ]}
      />
    </Card>
  );
}

function Mute({ channel, reload, user }: OfCall & { user: string }) {
  return (
    <Act
      label="Mute"
      title={`Mute ${user}?`}
      confirm="Mute"
      text={<p>Every microphone of theirs is switched off. They may switch it on again.</p>}
      act={async () => {
        const where = deed(channel, "mute");
        const { muted } = await ask<{ muted: boolean }>("POST", where, { userId: user });
        await reload();
        return muted ? `${user} is muted.` : `${user} is not in the call.`;
      }}
    />
  );
}

function Kick({ channel, reload, user }: OfCall & { user: string }) {
  return (
    <Act
      label="Kick"
      title={`Send ${user} away?`}
      danger
      confirm="Send away"
      text={<p>They leave the call with all devices, and need a new token to come back.</p>}
      act={async () => {
        const where = deed(channel, "leave");
        const { left } = await ask<{ left: boolean }>("POST", where, { userId: user });
        await reload();
        return left ? `${user} was sent away.` : `${user} is not in the call.`;
      }}
    />
  );
}

function Timeline({ channel: { channelId: id, waddleId: waddle } }: { channel: Channel }) {
  const [user, setUser] = useState("");
  const [older, setOlder] = useState<TimelineEntry[]>([]);
  const load = (cursor: string) =>
    ask<Told>(
      "GET",
      `${path`/admin/voice/channels/${id}/timeline`}${query({ cursor, limit: ROWS, userId: user, waddle })}`,
    );
  const { value, error, set, reload } = useLoaded(() => {
    setOlder([]);
    return load("");
  }, [id, waddle, user]);
  const say = useSay();
  const more = async () => {
    try {
      const next = await load(value!.nextCursor);
      setOlder([...older, ...value!.entries]);
      set(next);
    } catch (failed) {
      say(reason(failed), true);
    }
  };
  const rows = [...older, ...(value?.entries ?? [])];
  return (
    <Card
      title="Timeline"
      wide
      aside={
        <form
          class="row"
          onSubmit={(event) => {
            event.preventDefault();
            const name = new FormData(event.currentTarget).get("user");
            if (name === user) void reload();
            else setUser(String(name).trim());
          }}
        >
          <label class="inline">
            <span class="hidden">User</span>
            <input name="user" type="search" placeholder="Of a user" />
          </label>
          <button type="submit" class="button">
            Show
          </button>
        </form>
      }
    >
      <Failure text={error} />
      <Table
        caption="Timeline"
        whole
        rows={rows.map((row, at) => ({ ...row, number: at }))}
        by={(row) => String(row.number)}
        empty="Nothing was said of this channel in the last 7 days."
        columns={[
          { head: "Time", cell: (row) => <time title={date(row.at)}>{clock(row.at)}</time> },
          { head: "Source", cell: (row) => row.source },
          {
            head: "What",
            cell: (row) => (
              <span>
                {row.what}
                {row.count > 0 && <span class="muted"> ({row.count} left out)</span>}
              </span>
            ),
          },
          { head: "User", cell: (row) => <Id>{row.userId || "–"}</Id> },
          { head: "Why", cell: (row) => row.reason || "–" },
          {
            head: "Was wrong for",
            number: true,
            cell: (row) => (row.wrongMs ? span(row.wrongMs / 1000) : "–"),
          },
          { head: "Told by", cell: (row) => <Id>{row.ref || "–"}</Id> },
        ]}
      />
      {value?.nextCursor && (
        <div class="row foot">
          <button type="button" class="button" onClick={() => void more()}>
            Show older
          </button>
        </div>
      )}
    </Card>
  );
}

/** What was recorded. It is asked for on demand: whoever has an address can fetch what is there. */
function Recordings({ channel: { channelId: id, waddleId: waddle } }: { channel: Channel }) {
  const [rows, setRows] = useState<Recording[]>();
  const [error, setError] = useState("");
  const admin = useAdmin();
  const say = useSay();
  const at = path`/voice/channels/${id}/recordings`;
  const look = async () => {
    try {
      const found = await ask<{ recordings: Recording[] }>("GET", at + query({ waddle }));
      setRows(found.recordings);
      setError("");
    } catch (failed) {
      setError(reason(failed));
    }
  };
  const save = async ({ recordingId }: Recording) => {
    try {
      const text = await ask<string>(
        "GET",
        `${at}${path`/${recordingId}/text`}${query({ waddle })}`,
      );
      download(`${recordingId}.txt`, text);
    } catch (failed) {
      say(reason(failed), true);
    }
  };
  if (!admin) return <p class="muted small">Recordings are shown to role admin.</p>;
  return (
    <Card
      title="Recordings"
      wide
      aside={
        <button type="button" class="button" onClick={() => void look()}>
          Look them up
        </button>
      }
    >
      <Failure text={error} />
      {rows && (
        <Table
          caption="Recordings"
          rows={rows}
          by={(row) => row.recordingId}
          empty="Nothing that was recorded here can still be fetched."
          columns={[
            { head: "Ready", cell: (row) => <When at={row.readyAt} /> },
            { head: "What", cell: (row) => row.kind },
            {
              head: "Length",
              number: true,
              cell: (row) => (row.duration === null ? "–" : span(row.duration)),
            },
            { head: "Session", cell: (row) => <Id>{row.sessionId}</Id> },
            {
              head: "Until",
              cell: (row) => (row.expiresAt === null ? "–" : <time>{date(row.expiresAt)}</time>),
            },
            {
              head: "",
              cell: (row) => (
                <div class="row end">
                  {row.url && (
                    <a class="button" href={row.url} target="_blank" rel="noreferrer">
                      Open
                    </a>
                  )}
                  {row.kind !== "recording" && (
                    <button type="button" class="button" onClick={() => void save(row)}>
                      Download text
                    </button>
                  )}
                </div>
              ),
            },
          ]}
        />
      )}
    </Card>
  );
}
