/** Access tokens: in development a page of the server itself may have one made for any user. */

/** The team and, for a session, the channel in which the demo talks. */
export const WADDLE = "demo";
export const channelOf = (sessionId: string): string => `demo-${sessionId}`;

/** Addresses of this server, which may be below a path. */
export const SERVER = new URL(".", location.href).href.replace(/\/$/, "");

/**
 * @param user id
 * @param name how others are shown who it is
 * @throws Error with what the server says
 */
export async function tokenFor(user: string, name: string, channel: string): Promise<string> {
  const answer = await fetch(`${SERVER}/auth/token`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      user_id: user,
      name,
      voice: [{ waddle: WADDLE, channel, permissions: ["speak"] }],
    }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? `no token: ${answer.status}`);
  return body.access_token;
}
