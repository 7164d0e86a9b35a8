/** A static delta as the planner sees it. */
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { deltaPath, type DeltaRef } from '../manifests/manifest.ts'
import type { DeltaSource } from './plan-fill.ts'
import { loadDirectory, type SourceTools } from './sources.ts'

/** A delta with the nodes above the extents that it rebuilds. */
export interface OpenDelta extends DeltaSource {
  readonly nodes: readonly DagNode[]
}

export async function openDelta(ref: DeltaRef, tools: SourceTools, options: Abortable): Promise<OpenDelta> {
  const path = deltaPath(ref.sha256)
  await loadDirectory(path, ref.size, ref.directory, tools, options)
  throw new Error('not yet')
}
