/** What the voice provider tells this installation, and what could not be taken in. */
import { useState } from "preact/hooks";
import { ask, path, query } from "../access";
import { bytes, count, preview } from "../format";
import type { Letter, VoiceFigures } from "../types";
import { Act, Card, Failure, Id, isGone, Page, Pager, Table, useLoaded, When } from "../ui/parts";

type Letters = { dead_letters: Letter[]; next_cursor: string };
const ROWS = 50;
const OUTCOME = /^syncbridge_webhooks_total\{(?:.*,)?outcome="([^"]+)"[^}]*\} (\S+)$/gm;

/** How webhooks were answered, out of the metrics of the node that answers. */
function outcomes(text: string): { outcome: string; total: number }[] {
  const totals = new Map<string, number>();
  for (const [, outcome = "", value] of text.matchAll(OUTCOME)) {
    totals.set(outcome, (totals.get(outcome) ?? 0) + Number(value));
  }
  const found = [...totals].map(([outcome, total]) => ({ outcome, total }));
  return found.filter(({ total }) => total > 0);
}

export function Webhooks() {
  return (
    <Page title="Webhooks">
      <Incoming />
      <DeadLetters />
    </Page>
  );
}

function Incoming() {
  const { value, error, reload } = useLoaded(async () => {
    const figures = await ask<VoiceFigures>("GET", "/admin/metrics/voice");
    return { figures, outcomes: outcomes(await ask<string>("GET", "/metrics")) };
  }, []);
  return (
    <Card
      title="Incoming"
      wide
      aside={
        <button type="button" class="button" onClick={() => void reload()}>
          Refresh
        </button>
      }
    >
      <Failure text={error} />
      {value && !value.figures.enabled && (
        <p class="empty">No voice provider is configured here.</p>
      )}
      {value?.figures.enabled && (
        <>
          <p class="pad">
            {value.figures.webhooksWaiting
              ? `${count(value.figures.webhooksWaiting)} webhooks of ${value.figures.provider} wait for their effect.`
              : `Every webhook of ${value.figures.provider} has taken effect.`}
          </p>
          <Table
            caption="Webhooks by outcome"
            rows={value.outcomes}
            by={(row) => row.outcome}
            empty="None has come since the node that answers was started."
            columns={[
              { head: "Answered as", cell: (row) => row.outcome },
              { head: "Since the node's start", number: true, cell: (row) => count(row.total) },
            ]}
          />
        </>
      )}
    </Card>
  );
}

function DeadLetters() {
  const [cursors, setCursors] = useState([""]);
  const cursor = cursors.at(-1)!;
  const { value, error, busy, reload } = useLoaded(
    () => ask<Letters>("GET", `/admin/voice/dead-letters${query({ cursor, limit: ROWS })}`),
    [cursor],
  );
  const replayAll = async () => {
    try {
      for (const { entry } of value!.dead_letters) {
        // One that is not there any more was dealt with by somebody else.
        await ask("POST", path`/admin/voice/dead-letters/${entry}/replay`).catch((error) => {
          if (!isGone(error)) throw error;
        });
      }
    } finally {
      await reload();
    }
    return "They wait for their effect.";
  };
  return (
    <Card
      title="Dead letters"
      wide
      aside={
        <>
          <button type="button" class="button" disabled={busy} onClick={() => void reload()}>
            Refresh
          </button>
          {value && value.dead_letters.length > 1 && (
            <Act
              label="Replay all shown"
              title={`Replay ${value.dead_letters.length} dead letters?`}
              confirm="Replay them"
              text={
                <p>
                  They are taken in again, as if they had just come. What fails again comes back
                  here.
                </p>
              }
              act={replayAll}
            />
          )}
        </>
      }
    >
      <Failure text={error} />
      {value && (
        <Table
          caption="Dead letters"
          rows={value.dead_letters}
          by={(row) => row.entry}
          empty="There are none: everything that came has taken effect."
          columns={[
            { head: "Failed", cell: (row) => <When at={row.failed_at} /> },
            {
              head: "What",
              cell: (row) => (
                <span>
                  {row.kind}{" "}
                  <span class="mono">
                    {row.record || row.events.map(({ type }) => type).join(", ")}
                  </span>
                </span>
              ),
            },
            { head: "Reason", cell: (row) => row.reason },
            { head: "Body", cell: (row) => <Body letter={row} /> },
            { head: "Entry", cell: (row) => <Id>{row.entry}</Id> },
            { head: "", cell: (row) => <Deeds letter={row} reload={reload} /> },
          ]}
        />
      )}
      <Pager cursors={cursors} next={value?.next_cursor} go={setCursors} />
    </Card>
  );
}

function Body({ letter }: { letter: Letter }) {
  if (!letter.body) return <span class="muted">{bytes(letter.size)}, no JSON</span>;
  return (
    <details>
      <summary>{bytes(letter.size)}, secrets taken out</summary>
      <pre class="mono">{preview(letter.body, 4_096)}</pre>
    </details>
  );
}

function Deeds({ letter, reload }: { letter: Letter; reload: () => Promise<void> }) {
  return (
    <div class="row end">
      <Act
        label="Replay"
        title="Replay this letter?"
        confirm="Replay it"
        text={
          <p>It is taken in again, as if it had just come. If it fails again it comes back here.</p>
        }
        act={async () => {
          await ask("POST", path`/admin/voice/dead-letters/${letter.entry}/replay`);
          await reload();
          return "It waits for its effect.";
        }}
      />
      <Act
        label="Discard"
        title="Discard this letter?"
        danger
        confirm="Discard it"
        text={<p>What it said is lost. The next comparison with the provider may say it again.</p>}
        act={async () => {
          await ask("DELETE", path`/admin/voice/dead-letters/${letter.entry}`);
          await reload();
          return "It is discarded.";
        }}
      />
    </div>
  );
}
