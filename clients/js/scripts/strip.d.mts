export function strip(document: unknown): unknown;
export function write(document: unknown): string;
