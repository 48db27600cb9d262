/**
 * Members that only the package itself uses: they are published with short names.
 *
 * A name must be none of the protocol's, the DOM's, or the package's own interface; the size is not
 * worth a rename of those. `test/built.mjs` looks at what was built.
 */
const INTERNAL = `
  number edits replica queue dialogue event base sink object hello bounds bytes socket ready
  final newId wait presence link guarded changed server wake refusal lost inFlight verdict list
  ackVersion refused sent view ended keeper finished touching flag source take sleep journal
  moved prevVersion guard pump notBefore renewable whole left linked hurry newStream reconcile
  sentAt recall marks prevLineage attempts records texts joined say submit timer doubt renew
  sequenced measure renewed difference finish mark refuse report restore belongs ask slept
  reconnect replaceable acknowledge resendOlder outOfStep oversized flushed unsend withDeadline
  refuseOversized expireAt spent renewToken outgoing opening confirm adopt listed contest
  confirmed prepare draw cap pass receive times surroundings holds rewrite contested aliases
  refresh astray copies doubtful tried disconnected old move stands upTo forgotten commit emit
  pause fields handed
`
  .trim()
  .split(/\s+/);

const LETTERS = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"];
/** One letter for those that occur most, then two. */
const SHORT = ["", "_", "$"].flatMap((first) => LETTERS.map((letter) => first + letter));

/** What each is called in what is published. */
export const shortNames: Record<string, string> = Object.fromEntries(
  INTERNAL.map((name, i) => [name, SHORT[i]!]),
);
