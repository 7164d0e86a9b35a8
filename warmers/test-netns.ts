/**
 * For tests only: a network namespace behind a pair of interfaces, with losses and a rate as real
 * kernels have them. Undefined where that cannot be had: root, nftables and tc are needed.
 */
import { execFileSync, spawn } from 'node:child_process'
import { join } from 'node:path'

export interface FarSide extends Disposable {
  readonly address: string
  /** A static server of a folder, on the other side. */
  serve(folder: string): Promise<URL>
}

export interface LinkFaults {
  /** Of packets, each way. */
  readonly lossPercent?: number
  /** From the other side to this one; `2mbit` as tc has it. */
  readonly rate?: string
}

export function openFarSide({ lossPercent = 0, rate }: LinkFaults): FarSide | undefined {
  const name = `tl${process.pid % 10_000}`
  const address = '10.213.7.2'
  const run = (line: string) => execFileSync('sh', ['-c', line], { stdio: 'pipe' })
  const inside = (line: string) => run(`ip netns exec ${name} sh -c '${line}'`)
  const stop: (() => void)[] = []
  const undo = () => {
    for (const end of stop) end()
    for (const line of [`ip link del ${name}a`, `ip netns del ${name}`, `nft delete table inet ${name}`]) {
      try {
        run(line)
      } catch {
        // was not there
      }
    }
  }
  const drops = (on: string) =>
    `add table inet ${name}; add chain inet ${name} in { type filter hook input priority 0; }; add rule inet ${name} in iifname ${on} numgen random mod 100 < ${lossPercent} drop`
  try {
    run(`ip netns add ${name} && ip link add ${name}a type veth peer name ${name}b`)
    run(`ip link set ${name}b netns ${name}`)
    run(`ip addr add 10.213.7.1/30 dev ${name}a && ip link set ${name}a up gso_max_segs 1`)
    inside(`ip addr add ${address}/30 dev ${name}b && ip link set ${name}b up gso_max_segs 1`)
    if (lossPercent > 0) {
      run(`nft '${drops(`${name}a`)}'`)
      run(`ip netns exec ${name} nft '${drops(`${name}b`)}'`)
    }
    if (rate) inside(`tc qdisc add dev ${name}b root tbf rate ${rate} burst 16kb latency 400ms`)
  } catch {
    undo()
    console.warn('NOT RUN: network namespaces, nftables, tc and root are needed')
    return undefined
  }
  return {
    address,
    async serve(folder) {
      const main = join(import.meta.dirname, 'folder-process.ts')
      const args = ['netns', 'exec', name, process.execPath, main, folder, address]
      const child = spawn('ip', args, { stdio: ['ignore', 'pipe', 'inherit'] })
      stop.push(() => void child.kill())
      const { promise, resolve } = Promise.withResolvers<string>()
      child.stdout.once('data', data => resolve(String(data).trim()))
      return new URL(`http://${address}:${await promise}/`)
    },
    [Symbol.dispose]: undo,
  }
}
