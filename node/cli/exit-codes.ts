/**
 * What a command's exit code says. Part of the interface: scripts rely on it (docs/cli.md).
 */
export const EXIT = {
  /** Done; also when there was nothing to do. */
  done: 0,
  /** Failed, and will fail again until somebody changes something. */
  failed: 1,
  /** The command line or the configuration is wrong; nothing was touched. */
  usage: 2,
  /** Not now: the link is down, a window ended, another process holds the store. Run it again. */
  again: 3,
  /** Ctrl-C; 128 + SIGINT, as shells count. SIGTERM is 143, SIGHUP 129. */
  interrupted: 130,
} as const
