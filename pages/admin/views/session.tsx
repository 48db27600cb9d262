/** One session: what it is, its state, its devices, what happens in it, and its end. */
import { useRef } from "preact/hooks";
import { ask, path } from "../access";
import { now as serverNow } from "../clock";
import { bytes, count } from "../format";
import type { Commit } from "../tail";
import type { Inspected } from "../types";
import {
  Act,
  download,
  Facts,
  Failure,
  Id,
  Page,
  useAdmin,
  useFeed,
  useLoaded,
  When,
} from "../ui/parts";
import { Devices } from "./session_devices";
import { Live } from "./session_live";
import { State } from "./session_state";
import { sessionsOf } from "./sessions";

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
              ["User", <User key="u" id={session.user_id} />],
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

/** A user, whose sessions are a step away; the calls are, too, where there are any. */
function User({ id }: { id: string }) {
  const { me } = useFeed();
  return (
    <>
      <Id href={sessionsOf(id)}>{id}</Id>
      {me.voice && (
        <>
          {" · "}
          <a href={path`#/users/${id}`}>calls</a>
        </>
      )}
    </>
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
