/**
 * Which items must be here: must-have by their class, pinned by their manifest or the operator.
 * They block a switch of releases (I5) and are never evicted (I4).
 */
import { matchesGlob } from 'node:path'
import type { CatalogEntry } from '../manifests/catalog.ts'
import { sha256Of } from '../manifests/digest.ts'
import type { Manifest } from '../manifests/manifest.ts'
import type { Hold } from './store/store.ts'

export class Needs {
  readonly #mustHaveUpTo: number
  readonly #operatorPins: () => readonly string[]

  /**
   * @param mustHaveUpTo the last class that must be here whole; -1 for none.
   * @param operatorPins `dataset`, or `dataset/path`, or `dataset/folder/`.
   */
  constructor(mustHaveUpTo: number, operatorPins: () => readonly string[]) {
    this.#mustHaveUpTo = mustHaveUpTo
    this.#operatorPins = operatorPins
  }

  /** Changes when other items may be needed. */
  get signature(): string {
    return sha256Of(JSON.stringify([this.#mustHaveUpTo, this.#operatorPins()]))
  }

  whyOf(manifest: Manifest, entry: Pick<CatalogEntry, 'path' | 'priority'>): Hold | undefined {
    if (this.isPinned(manifest, entry.path)) return 'pinned'
    return (entry.priority ?? manifest.priority) <= this.#mustHaveUpTo ? 'mustHave' : undefined
  }

  isPinned({ dataset, pin }: Manifest, path: string): boolean {
    if (pin && (pin.ipfs || pin.s3) && (pin.paths?.some(glob => matchesGlob(path, glob)) ?? true)) return true
    return this.#operatorPins().some(wish => isOperatorPin(wish, dataset, path))
  }
}

/** @param wish `dataset`, or `dataset/path`, or `dataset/folder/`. */
export function isOperatorPin(wish: string, dataset: string, path: string): boolean {
  const whole = `${dataset}/${path}`
  return wish === dataset || wish === whole || (wish.endsWith('/') && whole.startsWith(wish))
}
