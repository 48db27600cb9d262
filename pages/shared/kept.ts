/**
 * A text that a tab keeps when it is loaded again. It is stored from the moment the page is left until
 * it is there again, so that neither a copy of the tab nor a closed one has it.
 *
 * @param key in the tab's own storage
 * @param now what is to be kept; undefined: nothing
 * @returns what was kept before this page
 */
export function keptOverReload(key: string, now: () => string | undefined): string | undefined {
  const before = sessionStorage.getItem(key) ?? undefined;
  sessionStorage.removeItem(key);
  addEventListener("pagehide", () => {
    const text = now();
    if (text !== undefined) sessionStorage.setItem(key, text);
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) sessionStorage.removeItem(key);
  });
  return before;
}
