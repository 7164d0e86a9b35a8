/** Sticks: what the owner does for `tower export` and `tower import`. */
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import {
  type ExportEvent,
  checkExport,
  exportRepository,
  wantListOf,
  WantList,
} from '../../warmers/export-repository.ts'
import { openFileUpstream } from '../../warmers/file-upstream.ts'
import type { Upstream } from '../../warmers/upstream.ts'
import type { ControlMethods } from '../control.ts'
import { type Owner, repositoryFolderOf } from '../owner.ts'

const ExportParams = z.strictObject({
  folder: z.string(),
  datasets: z.array(z.string()).optional(),
  wants: WantList.optional(),
})
const ImportParams = z.strictObject({ folder: z.string(), datasets: z.array(z.string()).optional() })

/** A piece of a stick that is not as it should be. */
export interface StickProblem {
  readonly type: 'problem'
  readonly path: string
  readonly problem: 'missing' | 'damaged'
}

export type { ExportEvent }

export function carrierMethods(owner: Owner): ControlMethods {
  return {
    async *wants() {
      yield await wantListOf(owner.library)
    },
    async *export(params, { signal }) {
      const { folder, datasets, wants } = ExportParams.parse(params)
      const { trust, library: releases, links, config } = owner
      await using own = openFolder(repositoryFolderOf(config.data), owner)
      const upstreams = [own, ...links.upstreams]
      yield* exportRepository({
        ...{ folder, trust, releases, upstreams, signal },
        ...(datasets && { datasets }),
        ...(wants && { wants }),
      })
    },
    async *import(params, options) {
      const { folder, datasets } = ImportParams.parse(params)
      for await (const found of checkExport(folder, options))
        yield { type: 'problem', ...found } satisfies StickProblem
      await using stick = openFolder(folder, owner)
      yield* owner.fill(
        { upstreams: [stick], window: `stick ${folder}`, ...(datasets && { datasets }) },
        options,
      )
    },
  }
}

function openFolder(folder: string, { ledger }: Owner): Upstream {
  const upstream: Upstream = openFileUpstream(pathToFileURL(`${folder}/`), record =>
    ledger.add({ ...record, link: 'stick', window: '', source: upstream.name }),
  )
  return upstream
}
