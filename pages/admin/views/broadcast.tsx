/** A message of an operator to devices. */
import { useState } from "preact/hooks";
import { ask } from "../access";
import { count } from "../format";
import { Act, Card, Page, useAdmin } from "../ui/parts";

const AUDIENCES = {
  admins: "Sockets of role admin",
  session: "The devices of one session",
  all: "Every device of every node",
} as const;

export function Broadcast() {
  const [audience, setAudience] = useState<keyof typeof AUDIENCES>("admins");
  const [session, setSession] = useState("");
  const [message, setMessage] = useState("");
  const [type, setType] = useState("notification");
  const send = async () => {
    if (!message) throw new Error("Write a message first.");
    const body = {
      message,
      type,
      audience,
      ...(audience === "session" && { session_id: session.trim() }),
    };
    type Delivery = { delivered: number; complete: boolean; nodes: number };
    const { delivered, complete, nodes } = await ask<Delivery>("POST", "/admin/broadcast", body);
    setMessage("");
    const missing = complete ? "" : " Not every node has answered.";
    return `${count(delivered)} devices of ${nodes} nodes were told.${missing}`;
  };
  return (
    <Page title="Broadcast">
      {!useAdmin() && <p class="muted">A viewer sees and may not act.</p>}
      <Card title="Message">
        <form class="form column" onSubmit={(event) => event.preventDefault()}>
          <label>
            To
            <select
              value={audience}
              onChange={({ currentTarget }) =>
                setAudience(currentTarget.value as keyof typeof AUDIENCES)
              }
            >
              {Object.entries(AUDIENCES).map(([name, text]) => (
                <option key={name} value={name}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          {audience === "session" && (
            <label>
              Session
              <input
                class="mono"
                value={session}
                onInput={({ currentTarget }) => setSession(currentTarget.value)}
              />
            </label>
          )}
          <label>
            Type, for programs
            <input value={type} onInput={({ currentTarget }) => setType(currentTarget.value)} />
          </label>
          <label>
            Message
            <textarea
              rows={4}
              value={message}
              onInput={({ currentTarget }) => setMessage(currentTarget.value)}
            />
          </label>
          <Act
            label="Send"
            title="Send this message?"
            confirm="Send it"
            danger={audience === "all"}
            text={
              <>
                <p>{AUDIENCES[audience]} will receive it as BROADCAST:</p>
                <blockquote>{message || "nothing yet"}</blockquote>
              </>
            }
            act={send}
          />
        </form>
      </Card>
    </Page>
  );
}
