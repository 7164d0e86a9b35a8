import { expect, it } from 'vitest'
import { networkOf } from './access-log.ts'

it.each([
  ['192.168.17.23', '192.168.0.0/16'],
  ['::ffff:10.1.2.3', '10.1.0.0/16'],
  ['2001:db8:1:2::3', '2001:db8::/32'],
  ['2001::3', '2001:0::/32'],
  ['127.0.0.1', 'loopback'],
  ['::1', 'loopback'],
  [undefined, 'unknown'],
])('%s is logged as %s', (address, network) => {
  expect(networkOf(address)).toBe(network)
})
