/**
 * CPU time of a server, all its processes and threads, from the kernel's scheduler (nanoseconds).
 */
import { readFileSync, readdirSync } from 'node:fs'

/** Seconds on a CPU so far: the process, its threads and its children. */
export function cpuSecondsOf(pid: number): number {
  return familyOf(pid).reduce((sum, member) => sum + threadsOf(member), 0) / 1e9
}

/** Seconds that it was ready to run and had to wait for its core, so far. */
export function waitSecondsOf(pid: number): number {
  return familyOf(pid).reduce((sum, member) => sum + threadsOf(member, 1), 0) / 1e9
}

/** Resident memory of the family in MB; shared pages count once per process. */
export function rssMbOf(pid: number): number {
  return familyOf(pid).reduce((sum, member) => {
    const [, kB = '0'] = /VmRSS:\s+(\d+)/.exec(read(`/proc/${member}/status`)) ?? []
    return sum + Number(kB) / 1000
  }, 0)
}

/** @param field of `schedstat`: 0 on a CPU, 1 waiting for one. */
function threadsOf(pid: number, field = 0): number {
  let sum = 0
  for (const thread of list(`/proc/${pid}/task`)) {
    sum += Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(' ', 2)[field] ?? 0)
  }
  return sum
}

function familyOf(pid: number): number[] {
  const children = list(`/proc/${pid}/task`).flatMap(thread =>
    read(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean).map(Number),
  )
  return [pid, ...children.flatMap(familyOf)]
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // it has ended
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
