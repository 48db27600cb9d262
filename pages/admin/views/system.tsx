/** The settings in effect, and what this server is. */
import { useState } from "preact/hooks";
import { ask, tokenEnds, whoAmI } from "../access";
import { date } from "../format";
import type { Me, Setting } from "../types";
import { Badge, Card, Facts, Failure, Id, Page, Table, useLoaded } from "../ui/parts";

interface Answered {
  me: Me;
  node: string;
  settings: Setting[];
}

/** Asked anew each time: since sign-in the server may have been started again, in another version. */
async function answered(): Promise<Answered> {
  const me = await whoAmI();
  return { me, ...(await ask<Omit<Answered, "me">>("GET", "/admin/configuration")) };
}

export function System() {
  const [filter, setFilter] = useState("");
  const [changed, setChanged] = useState(true);
  const { value, error } = useLoaded(answered, []);
  const words = filter.trim().toLowerCase();
  const rows = (value?.settings ?? []).filter(
    (row) =>
      (!changed || row.changed) &&
      `${row.name} ${row.section} ${row.text}`.toLowerCase().includes(words),
  );
  return (
    <Page title="System">
      {value && <About of={value} />}
      <Card
        title="Configuration"
        wide
        aside={
          <>
            <label class="check">
              <input
                type="checkbox"
                checked={changed}
                onChange={({ currentTarget }) => setChanged(currentTarget.checked)}
              />
              only what is set
            </label>
            <label class="inline">
              <span class="hidden">Settings that contain</span>
              <input
                type="search"
                placeholder="Name or meaning"
                value={filter}
                onInput={({ currentTarget }) => setFilter(currentTarget.value)}
              />
            </label>
          </>
        }
      >
        <Failure text={error} />
        {value && (
          <Table
            caption="Settings"
            rows={rows}
            by={(row) => row.name}
            empty="No setting is like that."
            columns={[
              { head: "Setting", cell: (row) => <Id>{row.name}</Id> },
              {
                head: "Value",
                cell: (row) => (
                  <span class={`mono value ${row.changed ? "set" : ""}`}>
                    {row.value || <span class="muted">unset</span>}
                  </span>
                ),
              },
              {
                head: "Default",
                cell: (row) => <span class="mono muted value">{row.default || "unset"}</span>,
              },
              { head: "Meaning", cell: (row) => row.text },
            ]}
          />
        )}
      </Card>
    </Page>
  );
}

function About({ of: { me, node } }: { of: Answered }) {
  return (
    <Facts
      facts={[
        ["Version", me.version],
        ["Node that answered", <Id key="n">{node}</Id>],
        [
          "Mode",
          me.development ? (
            <Badge key="d" kind="warn">
              development
            </Badge>
          ) : (
            "production"
          ),
        ],
        ["Voice provider", me.voice ? "configured" : "none"],
        ["Signed in as", `${me.user_id} (${me.role})`],
        ["Token good until", date(tokenEnds())],
      ]}
    />
  );
}
