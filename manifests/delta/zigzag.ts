/** Numbers of either sign as unsigned ones, small ones staying small: 0, −1, 1, −2, … */
export function zigzag(value: number): number {
  return value < 0 ? -2 * value - 1 : 2 * value
}

export function zigzagged(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2
}
