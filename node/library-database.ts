/**
 * What the library has worked out and could work out again: `library.db`, beside the store. It may be
 * deleted at any time; its rows are hints, checked by whoever follows them.
 */
import { join } from 'node:path'
import { Database } from './store/database.ts'

const SCHEMA = `
CREATE TABLE catalogs (id INTEGER PRIMARY KEY, root BLOB NOT NULL UNIQUE, whole INTEGER NOT NULL);
-- The first 48 bits of each item's digest, and of its root's where that is another one.
CREATE TABLE digests (key INTEGER NOT NULL, catalog INTEGER NOT NULL, page INTEGER NOT NULL,
  PRIMARY KEY (key, catalog, page)) WITHOUT ROWID;
-- Releases of which everything needed is held.
CREATE TABLE held (note TEXT PRIMARY KEY);
-- The first 48 bits of each chunk's digest, and the row of the node that names it.
CREATE TABLE chunks (key INTEGER NOT NULL, node INTEGER NOT NULL, PRIMARY KEY (key, node)) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL)
`
const NOTES_MAX = 1000

export function openLibraryDatabase(folder: string, readOnly: boolean, onDamage: () => void): Database {
  const path = join(folder, 'library.db')
  return new Database({ path, schema: SCHEMA, readOnly, derived: true, onDamage })
}

export function heldNotes(database: Database, readOnly: boolean) {
  return {
    has: (note: string) => database.get('SELECT 1 FROM held WHERE note = ?', note) !== undefined,
    add(note: string) {
      if (readOnly) return
      database.run('INSERT OR IGNORE INTO held (note) VALUES (?)', note)
      database.run('DELETE FROM held WHERE rowid <= (SELECT max(rowid) FROM held) - ?', NOTES_MAX)
    },
  }
}
