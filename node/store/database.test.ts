import { describe, expect, it } from 'vitest'
import { Database } from './database.ts'

const ROTTEN = 7_710_307_102_545_507_188n

function rotten(): Database {
  const schema = 'CREATE TABLE places (name TEXT NOT NULL, at INTEGER NOT NULL, bytes BLOB) STRICT'
  const database = new Database({
    path: ':memory:',
    schema,
    readOnly: false,
    derived: true,
    onDamage: () => {},
  })
  const insert = 'INSERT INTO places (name, at, bytes) VALUES (?, ?, ?)'
  database.run(insert, 'good', 7, Buffer.from('x'))
  database.run(insert, 'rotten', ROTTEN, null)
  return database
}

describe('an integer that a flipped bit made larger than any of ours', () => {
  it('is a wrong number, and stops no round over its table', () => {
    using database = rotten()
    const rows = database.all('SELECT name, at, bytes FROM places')
    expect(rows).toEqual([
      { name: 'good', at: 7, bytes: new Uint8Array(Buffer.from('x')) },
      { name: 'rotten', at: Number(ROTTEN), bytes: null },
    ])
    expect(database.get('SELECT at FROM places WHERE name = ?', 'rotten')?.['at']).toBe(Number(ROTTEN))
    expect(database.numbers('SELECT at FROM places')).toEqual([[7], [Number(ROTTEN)]])
  })

  it('leaves what is read afterwards numbers', () => {
    using database = rotten()
    database.all('SELECT name, at FROM places')
    expect(database.get('SELECT count(*) AS rows FROM places')).toEqual({ rows: 2 })
    expect(database.get('SELECT at FROM places WHERE name = ?', 'good')).toEqual({ at: 7 })
  })
})
