import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { isEdgeError } from '../../manifests/errors.ts'
import { extentNode, itemDag, parseNode } from '../../manifests/unixfs.ts'
import { NodeView } from './node-view.ts'

const someSizes = fc.array(fc.integer({ min: 1, max: 262_144 }), { minLength: 1, maxLength: 174 })

function nodeOver(sizes: readonly number[]): Uint8Array {
  return extentNode(sizes.map((sizeBytes, at) => ({ digest: sha256Of(`${at} ${sizeBytes}`), sizeBytes })))
    .bytes
}

describe('a node view', () => {
  it('says what the parsed node says', () => {
    fc.assert(
      fc.property(someSizes, sizes => {
        const bytes = nodeOver(sizes)
        const view = new NodeView(bytes)
        const { links, sizeBytes } = parseNode(bytes)
        expect([view.links, view.sizeBytes, view.over]).toEqual([links.length, sizeBytes, 'chunks'])
        let start = 0
        for (const [at, link] of links.entries()) {
          expect([view.cidAt(at), view.startOf(at), view.sizeOf(at), view.dagBytesOf(at)]).toEqual([
            link.cid,
            start,
            link.sizeBytes,
            link.dagBytes,
          ])
          expect(view.linkAt(start)).toBe(at)
          expect(view.linkAt(start + link.sizeBytes - 1)).toBe(at)
          start += link.sizeBytes
        }
      }),
      { numRuns: 50 },
    )
  })

  it('knows nodes above extents', () => {
    const extents = [1, 2].map(at => extentNode([{ digest: sha256Of(`${at}`), sizeBytes: 5_000_000 }]))
    const { nodes } = itemDag(extents)
    expect(new NodeView(nodes[0]!.bytes).over).toBe('nodes')
  })

  it('refuses what the parser refuses, whatever was changed', () => {
    fc.assert(
      fc.property(someSizes, fc.nat(), fc.nat(255), fc.boolean(), (sizes, place, value, cut) => {
        const bytes = Buffer.from(nodeOver(sizes.slice(0, 20)))
        bytes[place % bytes.length] = value
        const changed = cut ? bytes.subarray(0, place % bytes.length) : bytes
        const accepts = (parse: () => unknown) => {
          try {
            parse()
            return true
          } catch (error) {
            if (!isEdgeError(error, 'CATALOG_INVALID')) throw error
            return false
          }
        }
        // the parser looks closer (sizes of whole trees), so it may refuse more, never less
        if (accepts(() => parseNode(changed))) expect(accepts(() => new NodeView(changed))).toBe(true)
        accepts(() => new NodeView(changed))
      }),
      { numRuns: 500 },
    )
  })
})
