/** What the scripted runs want of a browser. */

export interface Browser {
  /** A profile of its own, with nothing stored. */
  profile(): Promise<Profile>;
  /** Processes of pages. */
  renderers(): Promise<number[]>;
  close(): Promise<void>;
}

export interface Profile {
  open(address: string): Promise<Tab>;
  close(): Promise<void>;
}

export interface Tab {
  /** The value of an expression, or of the promise that it gives; JSON only. */
  evaluate<T>(expression: string): Promise<T>;
  close(): Promise<void>;
  /** What a browser does to a page that nobody sees; only Chromium can be told to. */
  freeze?(frozen: boolean): Promise<void>;
}
