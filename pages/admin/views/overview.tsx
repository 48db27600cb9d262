/** How the installation is: one sentence, tiles, charts, and who makes it up. */
import { useState } from "preact/hooks";
import { now as serverNow } from "../clock";
import { complaints, KEPT, type Sample, time } from "../figures";
import { age, bytes, clock, count, ms, span } from "../format";
import type { Metrics, NodeFigures } from "../types";
import { Chart } from "../ui/chart";
import { Badge, Card, Id, Page, Table, useFeed } from "../ui/parts";

const CODES: Record<string, string> = {
  "1000": "bye",
  "1001": "going away",
  "1002": "protocol error",
  "1005": "no code",
  "1006": "no close frame",
  "1007": "text is not UTF-8",
  "1009": "message too big",
  "1011": "internal error",
  "1012": "server restarts",
  "4001": "no AUTH in time",
  "4002": "authentication failed",
  "4003": "not allowed",
  "4004": "token expired",
  "4005": "token revoked",
  "4006": "nothing heard for too long",
  "4007": "too many messages",
  "4008": "reads too slowly",
  "4009": "same device connected again",
  "4010": "device removed",
  "4011": "session full",
  "4012": "store away",
  "4013": "server full",
};

function sentence(metrics: Metrics): { kind: "good" | "bad"; text: string } {
  const wrong = complaints(metrics);
  if (wrong.length) return { kind: "bad", text: wrong.join(" ") };
  const nodes = metrics.nodes.length;
  return {
    kind: "good",
    text: `All is well: ${nodes} ${nodes === 1 ? "node answers" : "nodes answer"}, and writes are stored.`,
  };
}

function Tile({ name, value, note }: { name: string; value: string; note?: string }) {
  return (
    <div class="tile card">
      <span class="muted">{name}</span>
      <b>{value}</b>
      <span class="muted small">{note ?? " "}</span>
    </div>
  );
}

function counts(now: Record<string, number>, before: Record<string, number> | undefined) {
  return Object.entries(now)
    .filter(([, total]) => total > 0)
    .map(([code, total]) => ({
      code,
      total,
      fresh: before ? Math.max(0, total - (before[code] ?? 0)) : 0,
    }))
    .sort((a, b) => b.total - a.total);
}

export function Overview() {
  const feed = useFeed();
  const [long, setLong] = useState(false);
  const { metrics, before, voice, history } = feed;
  if (!metrics)
    return (
      <p class="empty">
        {feed.way === "lost" ? "The server does not answer." : "Asking the nodes…"}
      </p>
    );
  const samples = [...(long ? history.coarse : history.fine)];
  const now = history.fine.at(-1) as Sample;
  const state = sentence(metrics);
  const redis = metrics.nodes.find((node) => node.redis)?.redis;
  const per = (value: number) => `${count(value)}/s`;
  const minute = (value: number) => count(60 * value);
  return (
    <Page
      title="Overview"
      aside={
        <>
          <span class="muted small">
            {feed.way === "lost"
              ? "The server does not answer. Last figures "
              : feed.way === "socket"
                ? "Live, "
                : "Every 5 s, "}
            {clock(time(metrics.at))}
          </span>
          <button type="button" class="button" aria-pressed={long} onClick={() => setLong(!long)}>
            {long ? "Last hour" : "Last 12 hours"}
          </button>
        </>
      }
    >
      <p class={`sentence ${feed.way === "lost" ? "bad" : state.kind}`} role="status">
        {feed.way === "lost" ? "The server does not answer." : state.text}
      </p>
      <div class="tiles">
        <Tile
          name="Connections"
          value={count(metrics.connections.open)}
          note={`${count(metrics.connections.users)} users`}
        />
        <Tile
          name="Sessions in use"
          value={`${metrics.sessions.exact ? "" : "≈ "}${count(metrics.sessions.active)}`}
          note={
            metrics.snapshots
              ? `${count(metrics.snapshots.stored)} stored, ${bytes(metrics.snapshots.bytes)}`
              : "not known"
          }
        />
        <Tile
          name="Updates"
          value={per(now.updates)}
          note={`${count(metrics.sessions.writes_total)} since the start`}
        />
        <Tile
          name="Latency, p95"
          value={ms(now.p95)}
          note={`of writes; p50 ${ms(now.p50)}, p99 ${ms(now.p99)}`}
        />
        <Tile
          name="Errors told"
          value={`${minute(now.errors)}/min`}
          note={`${minute(now.closes)} sockets closed/min`}
        />
        <Tile
          name="Redis"
          value={redis ? redis.reason || "ready" : "away"}
          note={
            redis
              ? `${redis.kind} ${redis.version}, ${redis.role}, ${redis.replicas} replicas, ${redis.durability}`
              : "no node is connected"
          }
        />
        {voice?.enabled && (
          <Tile
            name="Calls"
            value={count(voice.channels)}
            note={`${count(voice.participants)} participants, ${count(voice.recording)} recorded`}
          />
        )}
      </div>
      <div class="charts">
        <Chart
          title="Connections and sessions"
          samples={samples}
          show={count}
          lines={[
            { label: "connections", read: (s) => s.connections },
            { label: "sessions", read: (s) => s.sessions },
          ]}
        />
        <Chart
          title="Updates a second"
          samples={samples}
          show={count}
          lines={[{ label: "updates", read: (s) => s.updates }]}
        />
        <Chart
          title="Write latency"
          samples={samples}
          show={ms}
          lines={[
            { label: "p50", read: (s) => s.p50 },
            { label: "p95", read: (s) => s.p95 },
            { label: "p99", read: (s) => s.p99 },
          ]}
        />
        <Chart
          title="Messages a second"
          samples={samples}
          show={count}
          lines={[
            { label: "received", read: (s) => s.received },
            { label: "sent", read: (s) => s.sent },
          ]}
        />
        <Chart
          title="Bytes sent a second"
          samples={samples}
          show={bytes}
          lines={[{ label: "sent", read: (s) => s.bytes }]}
        />
        <Chart
          title="Errors and closed sockets a minute"
          samples={samples}
          show={count}
          lines={[
            { label: "errors", read: (s) => 60 * s.errors },
            { label: "closed", read: (s) => 60 * s.closes },
          ]}
        />
      </div>
      <p class="muted small">
        Charts begin when this page was opened, and keep {KEPT} points: an hour, or twelve in
        minutes.
      </p>
      <div class="columns two">
        <Card title="Close codes">
          <Table
            caption="Closed sockets by code"
            empty="No socket was closed since the start."
            by={(row) => row.code}
            rows={counts(metrics.trouble.closes, before?.trouble.closes)}
            columns={[
              { head: "Code", cell: (row) => <span class="mono">{row.code}</span> },
              { head: "Meaning", cell: (row) => CODES[row.code] ?? "another one" },
              { head: "Since the start", number: true, cell: (row) => count(row.total) },
              { head: "New", number: true, cell: (row) => count(row.fresh) },
            ]}
          />
        </Card>
        <Card title="Errors told">
          <Table
            caption="ERROR messages by code"
            empty="No client was told of an error since the start."
            by={(row) => row.code}
            rows={counts(metrics.trouble.errors, before?.trouble.errors)}
            columns={[
              { head: "Code", cell: (row) => <span class="mono">{row.code}</span> },
              { head: "Since the start", number: true, cell: (row) => count(row.total) },
              { head: "New", number: true, cell: (row) => count(row.fresh) },
            ]}
          />
        </Card>
        <Card title="AUTH">
          <Table
            caption="AUTH messages by result"
            empty="Nobody has sent AUTH since the start."
            by={(row) => row.code}
            rows={counts(metrics.trouble.auth, before?.trouble.auth)}
            columns={[
              { head: "Result", cell: (row) => <span class="mono">{row.code}</span> },
              { head: "Since the start", number: true, cell: (row) => count(row.total) },
              { head: "New", number: true, cell: (row) => count(row.fresh) },
            ]}
          />
        </Card>
        <Card title="Lately">
          {feed.news.length ? (
            <ul class="news">
              {feed.news.slice(0, 12).map((one) => (
                <li key={`${one.at}${one.text}`}>
                  <time class="muted">{clock(one.at)}</time> {one.text}
                </li>
              ))}
            </ul>
          ) : (
            <p class="empty">Nothing was reported since this page was opened.</p>
          )}
        </Card>
      </div>
      <Card title="Nodes" wide>
        <Table
          caption="Nodes"
          empty="No node answers."
          by={(node) => node.node}
          rows={metrics.nodes}
          columns={NODES}
        />
      </Card>
    </Page>
  );
}

function nodeState(node: NodeFigures) {
  if (!node.fresh) return <Badge kind="bad">silent</Badge>;
  if (node.draining) return <Badge kind="warn">stopping</Badge>;
  if (node.redis?.reason) return <Badge kind="bad">{node.redis.reason}</Badge>;
  return <Badge kind="good">ready</Badge>;
}

const NODES = [
  { head: "Node", cell: (node: NodeFigures) => <Id>{node.node}</Id> },
  { head: "State", cell: nodeState },
  { head: "Connections", number: true, cell: (node: NodeFigures) => count(node.open_connections) },
  { head: "Sessions", number: true, cell: (node: NodeFigures) => count(node.sessions) },
  { head: "Writes", number: true, cell: (node: NodeFigures) => count(node.writes) },
  {
    head: "Waiting for readers",
    number: true,
    cell: (node: NodeFigures) => bytes(node.queued_bytes),
  },
  {
    head: "Waiting for Redis",
    number: true,
    cell: (node: NodeFigures) => count(node.redis?.queued),
  },
  {
    head: "Running",
    cell: (node: NodeFigures) => (
      <span title={age(node.started_at)}>{span((serverNow() - node.started_at) / 1000)}</span>
    ),
  },
];
