/**
 * What the busy node has to do: more comes than there is room for, of a more important class than what
 * lies there and nobody asks for.
 */
const MiB = 1024 * 1024

export const OLD_BYTES = 320 * MiB
export const CHURN_BYTES = 320 * MiB
/** Room left when it begins. */
export const ROOM_BYTES = 16 * MiB
export const SCRUB_BYTES_PER_SECOND = 16 * MiB
