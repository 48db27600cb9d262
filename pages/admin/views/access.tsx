/** Tokens: given out, taken back, and links to this dashboard. */
import { useState } from "preact/hooks";
import { ask } from "../access";
import { count, date } from "../format";
import type { Revocation } from "../types";
import {
  Act,
  Card,
  Failure,
  Id,
  Once,
  Page,
  reason,
  Table,
  useAdmin,
  useFeed,
  useLoaded,
  When,
} from "../ui/parts";

export function Access() {
  const admin = useAdmin();
  const { value, error, reload } = useLoaded(
    () => ask<{ revocations: Revocation[]; total: number }>("GET", "/admin/revocations"),
    [],
  );
  return (
    <Page title="Access">
      {!admin && <p class="muted">A viewer sees and may not act.</p>}
      {admin && (
        <div class="columns">
          <Link />
          <Issue />
          <Revoke reload={reload} />
        </div>
      )}
      <Card
        title="Revocations"
        wide
        aside={
          <button type="button" class="button" onClick={() => void reload()}>
            Refresh
          </button>
        }
      >
        <Failure text={error} />
        {value && (
          <>
            <Table
              caption="Revocations"
              rows={value.revocations}
              by={(row) => `${row.kind} ${row.value} ${row.user_id}`}
              empty="No token was taken back."
              columns={[
                {
                  head: "What",
                  cell: (row) =>
                    row.kind === "jti"
                      ? "one token"
                      : row.kind === "family"
                        ? "a login"
                        : `a ${row.kind}`,
                },
                { head: "Id", cell: (row) => <Id>{row.value}</Id> },
                { head: "Of user", cell: (row) => <Id>{row.user_id || "–"}</Id> },
                {
                  head: "Tokens from before",
                  cell: (row) => (
                    <span>
                      {date(row.at)} (<When at={row.at} />)
                    </span>
                  ),
                },
              ]}
            />
            <p class="muted small pad">
              {count(value.total)} hold, as the node that answers knows them.
            </p>
          </>
        )}
      </Card>
    </Page>
  );
}

function Link() {
  const [role, setRole] = useState("viewer");
  const [user, setUser] = useState("");
  const [link, setLink] = useState("");
  const [error, setError] = useState("");
  const { me } = useFeed();
  const make = async () => {
    setError("");
    try {
      const body = { role, user_id: user.trim() || me.user_id };
      const { path } = await ask<{ path: string }>("POST", "/admin/links", body);
      setLink(location.origin + path);
    } catch (failed) {
      setError(reason(failed));
    }
  };
  return (
    <Card title="Invite to this dashboard">
      <form
        class="form column"
        onSubmit={(event) => {
          event.preventDefault();
          void make();
        }}
      >
        <label>
          Name in the audit log
          <input
            placeholder={me.user_id}
            maxLength={64}
            value={user}
            onInput={({ currentTarget }) => setUser(currentTarget.value)}
          />
        </label>
        <label>
          Role
          <select value={role} onChange={({ currentTarget }) => setRole(currentTarget.value)}>
            <option value="viewer">viewer: sees and may not act</option>
            <option value="admin">admin</option>
          </select>
        </label>
        <Failure text={error} />
        <button type="submit" class="button" disabled={!me.issues_tokens}>
          Make a link
        </button>
        {!me.issues_tokens && <p class="muted small">Tokens are issued elsewhere.</p>}
        {link && <Once key={link} label="Works once, for ten minutes" text={link} />}
      </form>
    </Card>
  );
}

const EMPTY = { user_id: "", role: "user", session_id: "", device_id: "", ttl: "900" };

function Issue() {
  const [given, setGiven] = useState(EMPTY);
  const [token, setToken] = useState("");
  const [error, setError] = useState("");
  const { me } = useFeed();
  const field = (name: keyof typeof EMPTY, label: string, more = {}) => (
    <label>
      {label}
      <input
        {...more}
        value={given[name]}
        onInput={({ currentTarget }) => setGiven({ ...given, [name]: currentTarget.value })}
      />
    </label>
  );
  const issue = async () => {
    setError("");
    setToken("");
    try {
      const { ttl, ...rest } = given;
      const pair = await ask<{ access_token: string }>("POST", "/auth/token", {
        ...rest,
        ttl: Number(ttl),
      });
      setToken(pair.access_token);
    } catch (failed) {
      setError(reason(failed));
    }
  };
  return (
    <Card title="Issue a token">
      <form
        class="form column"
        onSubmit={(event) => {
          event.preventDefault();
          void issue();
        }}
      >
        {field("user_id", "User", { required: true, maxLength: 64 })}
        <label>
          Role
          <select
            value={given.role}
            onChange={({ currentTarget }) => setGiven({ ...given, role: currentTarget.value })}
          >
            {["user", "service", "viewer", "admin"].map((role) => (
              <option key={role}>{role}</option>
            ))}
          </select>
        </label>
        {field("session_id", "Only for session")}
        {field("device_id", "Only for device")}
        {field("ttl", "Life in seconds", { type: "number", min: 1, required: true })}
        <Failure text={error} />
        <button type="submit" class="button" disabled={!me.issues_tokens}>
          Issue
        </button>
        {token && <Once label="Shown once" text={token} />}
      </form>
    </Card>
  );
}

const KINDS = {
  user_id: "Every token of a user",
  device_id: "Every token of a device",
  family: "A login",
  jti: "One token, by its id",
} as const;

function Revoke({ reload }: { reload: () => Promise<void> }) {
  const [kind, setKind] = useState<keyof typeof KINDS>("user_id");
  const [value, setValue] = useState("");
  const name = value.trim();
  return (
    <Card title="Revoke tokens">
      <form class="form column" onSubmit={(event) => event.preventDefault()}>
        <label>
          What
          <select
            value={kind}
            onChange={({ currentTarget }) => setKind(currentTarget.value as keyof typeof KINDS)}
          >
            {Object.entries(KINDS).map(([one, text]) => (
              <option key={one} value={one}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <label>
          Id
          <input
            maxLength={64}
            value={value}
            onInput={({ currentTarget }) => setValue(currentTarget.value)}
          />
        </label>
        <Act
          label="Revoke"
          title="Revoke tokens?"
          danger
          confirm="Revoke them"
          text={
            <p>
              {KINDS[kind]}: <span class="mono">{name || "name one first"}</span>. They end now on
              all nodes, and their sockets are closed.
            </p>
          }
          act={async () => {
            if (!name) throw new Error("Name an id first.");
            await ask("POST", "/auth/revoke", { [kind]: name });
            setValue("");
            await reload();
            return "They are revoked.";
          }}
        />
      </form>
    </Card>
  );
}
