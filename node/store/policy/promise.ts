/**
 * What a planner expects of an extent that it had fetched: a request rate, in one byte. Quarter
 * octaves of the chance that the next request is for it; 0 means that nothing is expected.
 */

const STEPS_PER_OCTAVE = 4

export const NO_PROMISE = 0

export function promiseOf(logRate: number): number {
  return Math.min(Math.max(Math.round(-logRate * STEPS_PER_OCTAVE), 0) + 1, 255)
}

/** Log2 of the rate; -Infinity for no promise. */
export function logRateOf(promise: number): number {
  return promise === NO_PROMISE ? -Infinity : (1 - promise) / STEPS_PER_OCTAVE
}
