/** What a device hears of its user: a microphone, a test tone, or a button. */
const LOUD = 0.01;
const HOLD = 500;
const LOOK = 100;

/** Where speech comes from. */
export interface Sound {
  /** @throws what `getUserMedia` throws */
  open(): Promise<void>;
  /** Hear of the begin and the end of speech; returns what ends it. */
  listen(speaking: (now: boolean) => void): () => void;
  mute(muted: boolean): void;
  resume(): Promise<void>;
  close(): void;
}

/** A stream of sound; loud parts of it are speech. */
export class StreamSound implements Sound {
  /** A tone that comes and goes, in place of the microphone. */
  tone = false;
  #context: AudioContext | undefined;
  #stream: MediaStream | undefined;
  #muted = false;
  #look = () => {};

  async open(): Promise<void> {
    this.close();
    const microphone = this.tone
      ? undefined
      : await navigator.mediaDevices.getUserMedia({ audio: true });
    this.#context = new AudioContext();
    this.#stream = microphone ?? beeps(this.#context);
  }

  listen(speaking: (now: boolean) => void): () => void {
    const meter = this.#context!.createAnalyser();
    this.#context!.createMediaStreamSource(this.#stream!).connect(meter);
    const samples = new Float32Array(meter.fftSize);
    let now = false;
    let heard = Number.NEGATIVE_INFINITY;
    this.#look = () => {
      meter.getFloatTimeDomainData(samples);
      if (samples.some((sample) => Math.abs(sample) > LOUD)) heard = performance.now();
      const loud = !this.#muted && performance.now() - heard < HOLD;
      if (loud !== now) speaking(loud);
      now = loud;
    };
    const timer = setInterval(this.#look, LOOK);
    return () => {
      clearInterval(timer);
      this.#look = () => {};
    };
  }

  mute(muted: boolean): void {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
    this.#look();
  }

  async resume(): Promise<void> {
    await this.#context?.resume();
  }

  close(): void {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    void this.#context?.close();
    this.#stream = this.#context = undefined;
  }
}

/** A second of tone, a second of silence. It is measured, not played. */
function beeps(context: AudioContext): MediaStream {
  const tone = context.createOscillator();
  const rhythm = context.createOscillator();
  const loudness = context.createGain();
  const out = context.createMediaStreamDestination();
  rhythm.type = "square";
  rhythm.frequency.value = 0.5;
  loudness.gain.value = 0.5;
  const depth = context.createGain();
  depth.gain.value = 0.5;
  rhythm.connect(depth).connect(loudness.gain);
  tone.connect(loudness).connect(out);
  tone.start();
  rhythm.start();
  return out.stream;
}

/** Speech at the press of a button. */
export class ButtonSound implements Sound {
  speaking = false;
  #told: ((now: boolean) => void) | undefined;

  speak(now: boolean): void {
    this.speaking = now;
    this.#told?.(now);
  }

  listen(speaking: (now: boolean) => void): () => void {
    this.#told = speaking;
    return () => {
      this.#told = undefined;
      this.speaking = false;
    };
  }

  async open(): Promise<void> {}
  mute(): void {}
  async resume(): Promise<void> {}
  close(): void {}
}
