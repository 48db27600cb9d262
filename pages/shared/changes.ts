/** Models that tell of changes, and components that show them. */
import { useEffect, useReducer } from "preact/hooks";

/** Something that changes. */
export class Changing {
  readonly #listeners = new Set<() => void>();

  /** @returns a function that ends the listening */
  readonly onChange = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  protected readonly changed = (): void => {
    for (const listener of [...this.#listeners]) listener();
  };
}

/** Draws the component again when the model has changed, at most once a frame. */
export function useChanges(model: Pick<Changing, "onChange">): void {
  const [, draw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    let frame = 0;
    const stop = model.onChange(() => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw(undefined as never);
      });
    });
    draw(undefined as never);
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [model]);
}
