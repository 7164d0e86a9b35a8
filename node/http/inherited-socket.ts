/**
 * The listening socket that systemd keeps open while the node restarts (sd_listen_fds(3)): clients
 * wait in it for the second that takes, instead of being refused.
 */

const FIRST_FD = 3

/** @returns the descriptor, undefined when nothing was handed to this very process. */
export function inheritedSocketOf(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): number | undefined {
  const { LISTEN_FDS: count, LISTEN_PID: owner } = env
  return Number(owner) === pid && Number(count) >= 1 ? FIRST_FD : undefined
}
