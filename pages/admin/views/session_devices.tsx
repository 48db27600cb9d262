/** The devices of a session, and what can be done to one. */
import { ask, path, query } from "../access";
import type { ConnectionRow, DeviceRow, Inspected } from "../types";
import { Act, Badge, Card, Id, Table, When } from "../ui/parts";

export function Devices({ session, reload }: { session: Inspected; reload: () => Promise<void> }) {
  const device = (row: DeviceRow) => row.device_id;
  const rows = [...session.devices].sort(
    (a, b) => Number(b.online) - Number(a.online) || (device(a) < device(b) ? -1 : 1),
  );
  return (
    <Card title="Devices" wide>
      <Table
        caption="Devices"
        rows={rows}
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
