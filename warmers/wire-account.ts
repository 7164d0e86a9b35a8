/** What requests moved over the wire: counted on the lane's socket, told in steps. */
import type { Lane } from './lane.ts'
import type { Purpose, WireRecord } from './upstream.ts'

/** The wire is reported in steps no larger than this, so that a kill forgets little. */
const REPORT_BYTES = 256 * 1024

interface Counters {
  bytesDown: number
  bytesUp: number
  requests: number
  connections: number
}

export function count(
  wire: Counters,
  { bytesDown, bytesUp, requests }: WireRecord,
  connections: number,
): void {
  wire.bytesDown += bytesDown
  wire.bytesUp += bytesUp
  wire.requests += requests
  wire.connections += connections
}

/** What one request moved, told in steps. */
export class Account {
  down = 0
  up = 0
  body = 0
  requests = 0
  connections = 0
  connectDown = 0
  connectUp = 0
  readonly #purpose: Purpose
  readonly #lane: Lane
  readonly #wire: Counters
  readonly #onWire: (record: WireRecord) => void
  #untold = 0
  #told = 0

  constructor(purpose: Purpose, lane: Lane, wire: Counters, onWire: (record: WireRecord) => void) {
    this.#purpose = purpose
    this.#lane = lane
    this.#wire = wire
    this.#onWire = onWire
  }

  asked(): void {
    this.requests++
  }

  received(bytes: number): void {
    this.body += bytes
    this.#untold += bytes
    if (this.#untold >= REPORT_BYTES) this.report()
  }

  report(): void {
    const moved = this.#lane.look()
    const requests = this.requests - this.#told
    this.#told = this.requests
    this.#untold = 0
    this.down += moved.down
    this.up += moved.up
    this.connections += moved.connections
    this.connectDown += moved.connectDown
    this.connectUp += moved.connectUp
    const record = { ...this.#purpose, bytesDown: moved.down, bytesUp: moved.up, requests }
    count(this.#wire, record, moved.connections)
    if (moved.down + moved.up + requests > 0) this.#onWire(record)
  }
}
