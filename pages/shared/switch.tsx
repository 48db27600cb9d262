/** A switch with its label: on or off at once, unlike a checkbox of a form. */
interface SwitchProps {
  label: string;
  on: boolean;
  onSwitch(on: boolean): void;
}

export function Switch({ label, on, onSwitch }: SwitchProps) {
  return (
    <button
      type="button"
      role="switch"
      class="switch"
      aria-checked={on}
      onClick={() => onSwitch(!on)}
    >
      <span class="switch-track" aria-hidden="true">
        <span class="switch-thumb" />
      </span>
      {label}
    </button>
  );
}
